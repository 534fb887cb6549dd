"""Global attractor: how far apart two contexts are, over sampled pairs.

Shapes: N contexts, D context_dim, K pairs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.rows import Rows
from newllm_core.analysis.summary import cosine, summary

# Rows of sampled pairs that are held in memory at once, in entries: wide matrices get fewer pairs.
HELD_ELEMENTS = 2**26
PAIR_ELEMENTS = 2**21
HISTOGRAM_BINS = 100


def sample_pairs(num_rows: int, num_pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return indices i != j of `num_pairs` pairs, drawn uniformly; all pairs if there are no more.

    Raises:
        ValueError: fewer than two rows.
    """
    if num_rows < 2:
        raise ValueError("pairwise figures need at least two rows")
    if num_rows * (num_rows - 1) // 2 <= num_pairs:
        left, right = torch.triu_indices(num_rows, num_rows, offset=1)
        return left, right
    generator = torch.Generator().manual_seed(seed)
    left = torch.randint(num_rows, (num_pairs,), generator=generator)
    offset = torch.randint(1, num_rows, (num_pairs,), generator=generator)
    return left, (left + offset) % num_rows


def pairwise(
    matrix: Tensor | Rows, *, num_pairs: int, seed: int
) -> tuple[dict[str, float], dict[str, float], list[float]]:
    """Return L2 distances and cosines of pairs of rows of `matrix` [N, D].

    Returns:
        For each of the two: mean, median, std, min, max, `stderr` (the standard error of the mean
        that sampling leaves; 0 where every pair was used) and `num_pairs`. Third the histogram of
        the cosines: shares of pairs in `HISTOGRAM_BINS` equal bins from -1 to 1.
    """
    rows = Rows.of(matrix)
    num_pairs = min(num_pairs, max(2, HELD_ELEMENTS // (2 * rows.num_columns)))
    left, right = sample_pairs(rows.num_rows, num_pairs, seed)
    exact = len(left) == rows.num_rows * (rows.num_rows - 1) // 2
    wanted, positions = torch.unique(torch.cat([left, right]), return_inverse=True)
    taken = rows.take(wanted)
    left_K, right_K = positions.to(taken.device).split(len(left))
    distances, cosines = [], []
    step = max(1, PAIR_ELEMENTS // rows.num_columns)
    for i, j in zip(left_K.split(step), right_K.split(step), strict=True):
        a, b = taken[i].double(), taken[j].double()
        distances.append((a - b).norm(dim=1))
        cosines.append(cosine(a, b))
    all_cosines = torch.cat(cosines)
    counts = torch.histc(all_cosines.cpu(), bins=HISTOGRAM_BINS, min=-1, max=1)
    return (
        _describe(torch.cat(distances), exact),
        _describe(all_cosines, exact),
        (counts / len(all_cosines)).tolist(),
    )


def _describe(values_K: Tensor, exact: bool) -> dict[str, float]:
    described = summary(values_K)
    error = 0.0 if exact else described["std"] / len(values_K) ** 0.5
    return {**described, "stderr": error, "num_pairs": len(values_K)}


def mean_cosine(contexts_ND: Tensor) -> float:
    """Return mean cosine over all pairs of rows, in one pass: `(‖Σ ĉ‖² - Σ ‖ĉ‖²) / (N (N - 1))`.

    A row of zeros counts as orthogonal to all others; its norm gives it away.
    """
    unit_ND = F.normalize(contexts_ND.double(), dim=1)
    count = len(unit_ND)
    total = unit_ND.sum(0).square().sum() - unit_ND.square().sum()
    return float(total / max(1, count * (count - 1)))
