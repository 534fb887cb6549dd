"""The sections that need nothing but a matrix: norms, pairs, distribution, rank.

Shapes: N contexts, D context_dim, K pairs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.chunks import chunks
from newllm_core.analysis.rank import information_content, spectrum
from newllm_core.analysis.summary import cosine, summary
from newllm_core.config import AnalysisConfig

# An entry counts as zero below this share of the root mean square of all entries.
NEARLY_ZERO = 0.01
# Rows of sampled pairs that are held in memory at once, in entries: wide matrices get fewer pairs.
HELD_ELEMENTS = 2**26
PAIR_ELEMENTS = 2**21
HISTOGRAM_BINS = 100


def matrix_sections(
    matrix_ND: Tensor, config: AnalysisConfig, *, seed: int
) -> tuple[dict[str, Any], Tensor]:
    """Return figures of two rows or more, and their right singular vectors [D, K]."""
    num_top = config.num_singular_vectors
    values, vectors_DK = spectrum(matrix_ND, num_vectors=num_top)
    l2, cosine, histogram = pairwise(matrix_ND, num_pairs=config.num_pairs, seed=seed)
    figures = {
        **information_content(values, matrix_ND, num_top=num_top),
        "norm": norm_summary(matrix_ND),
        "pairwise_l2": l2,
        "pairwise_cosine": cosine,
        "cosine_histogram": histogram,
        **distribution(matrix_ND),
    }
    return figures, vectors_DK


def norm_summary(matrix_ND: Tensor) -> dict[str, float]:
    """Return mean, median, std, min and max of the Euclidean norms of the rows."""
    return summary(torch.cat([chunk.norm(dim=1) for chunk in chunks(matrix_ND)]))


def moments(matrix_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population variance of every column, float64 [D] each.

    The mean is known before squares are summed: a large one costs no digits.
    """
    mean_D = torch.as_tensor(sum(chunk.sum(0) for chunk in chunks(matrix_ND))) / len(matrix_ND)
    squares_D = sum((chunk - mean_D).square().sum(0) for chunk in chunks(matrix_ND))
    return mean_D, torch.as_tensor(squares_D) / len(matrix_ND)


def distribution(matrix_ND: Tensor) -> dict[str, Any]:
    """Return `dimension_mean` and `dimension_variance` of a matrix, and its `sparsity`.

    That is the share of entries below 1 % of their root mean square: 0.008 for Gaussian ones.
    """
    mean_D, variance_D = moments(matrix_ND)
    limit = NEARLY_ZERO * float((variance_D + mean_D.square()).mean().sqrt())
    small = sum(int((chunk.abs() < limit).sum()) for chunk in chunks(matrix_ND))
    return {
        "dimension_mean": mean_D.tolist(),
        "dimension_variance": variance_D.tolist(),
        "sparsity": small / matrix_ND.numel() if limit else 1.0,
    }


def live_dimensions(dimension_mean: list[float], dimension_variance: list[float]) -> float:
    """Return the share of dimensions with a variance of at least 1 % of all entries' mean square.

    A dimension below it says (nearly) the same in every context.
    """
    squares = [m * m + v for m, v in zip(dimension_mean, dimension_variance, strict=True)]
    limit = NEARLY_ZERO * (sum(squares) / len(squares))
    return sum(v > 0 and v >= limit for v in dimension_variance) / len(dimension_variance)


def sample_pairs(num_rows: int, num_pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return indices i != j of `num_pairs` uniformly drawn pairs; of all if there are no more."""
    if num_rows * (num_rows - 1) // 2 <= num_pairs:
        left, right = torch.triu_indices(num_rows, num_rows, offset=1)
        return left, right
    generator = torch.Generator().manual_seed(seed)
    left = torch.randint(num_rows, (num_pairs,), generator=generator)
    offset = torch.randint(1, num_rows, (num_pairs,), generator=generator)
    return left, (left + offset) % num_rows


def pairwise(
    matrix_ND: Tensor, *, num_pairs: int, seed: int
) -> tuple[dict[str, float], dict[str, float], list[float]]:
    """Summarise L2 distances and cosines of pairs of rows.

    The `stderr` of the mean is 0 where every pair was used. Third comes the histogram of the
    cosines: shares of pairs in `HISTOGRAM_BINS` equal bins from -1 to 1.
    """
    num_rows, num_columns = matrix_ND.shape
    num_pairs = min(num_pairs, max(2, HELD_ELEMENTS // (2 * num_columns)))
    left, right = sample_pairs(num_rows, num_pairs, seed)
    exact = len(left) == num_rows * (num_rows - 1) // 2
    wanted, positions = torch.unique(torch.cat([left, right]), return_inverse=True)
    taken = matrix_ND.detach()[wanted.to(matrix_ND.device)]
    left_K, right_K = positions.to(taken.device).split(len(left))
    distances, cosines = [], []
    step = max(1, PAIR_ELEMENTS // num_columns)
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
    unit_ND = F.normalize(contexts_ND.double(), dim=1, eps=1e-150)
    count = len(unit_ND)
    total = unit_ND.sum(0).square().sum() - unit_ND.square().sum()
    return float(total / max(1, count * (count - 1)))
