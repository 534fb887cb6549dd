"""The sections that need nothing but a matrix: norms, pairs, distribution, rank.

Shapes: N contexts, D context_dim.
"""

from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.pairwise import pairwise
from newllm_core.analysis.rank import Spectrum, information_content, spectrum
from newllm_core.analysis.rows import Rows
from newllm_core.analysis.summary import summary
from newllm_core.config import AnalysisConfig

# An entry counts as zero below this share of the root mean square of all entries.
NEARLY_ZERO = 0.01


def matrix_sections(
    rows: Rows, config: AnalysisConfig, *, seed: int
) -> tuple[dict[str, Any], Spectrum]:
    """Return figures of `rows` [N, D], at least two, and the spectrum they come from."""
    num_top = config.num_singular_vectors
    decomposed = spectrum(rows, num_vectors=num_top)
    l2, cosine, histogram = pairwise(rows, num_pairs=config.num_pairs, seed=seed)
    figures = {
        **information_content(decomposed.singular_values, rows, num_top=num_top),
        "norm": norm_summary(rows),
        "pairwise_l2": l2,
        "pairwise_cosine": cosine,
        "cosine_histogram": histogram,
        **distribution(rows),
    }
    return figures, decomposed


def norm_summary(matrix: Tensor | Rows) -> dict[str, float]:
    """Return mean, median, std, min and max of the Euclidean norms of the rows of [N, D]."""
    return summary(torch.cat([chunk.norm(dim=1) for chunk in Rows.of(matrix).chunks()]))


def moments(matrix: Tensor | Rows) -> tuple[Tensor, Tensor]:
    """Return mean and population variance of every column of `matrix` [N, D], float64 [D] each.

    Chunks are merged by the update of Chan, Golub & LeVeque (1979), which loses no digits to a
    mean that is large beside the deviations.
    """
    count = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    for chunk in Rows.of(matrix).chunks():
        own = chunk.mean(dim=0)
        total = count + len(chunk)
        delta = own - mean
        mean = mean + delta * (len(chunk) / total)
        squares = squares + (chunk - own).square().sum(0)
        squares = squares + delta.square() * (count * len(chunk) / total)
        count = total
    return torch.as_tensor(mean), torch.as_tensor(squares) / count


def distribution(matrix: Tensor | Rows) -> dict[str, Any]:
    """Return `dimension_mean` and `dimension_variance` of `matrix` [N, D], and its `sparsity`.

    That is the share of entries with a magnitude below 1 % of the root mean square of all entries
    (about 0.008 for Gaussian entries, 1 for a matrix of zeros); it does not depend on scale.
    """
    rows = Rows.of(matrix)
    mean_D, variance_D = moments(rows)
    root_mean_square = float((variance_D + mean_D.square()).mean().sqrt())
    return {
        "dimension_mean": mean_D.tolist(),
        "dimension_variance": variance_D.tolist(),
        "sparsity": sparsity(rows, root_mean_square),
    }


def sparsity(rows: Rows, root_mean_square: float) -> float:
    """Return the share of entries below 1 % of `root_mean_square`; 1 where everything is zero."""
    if root_mean_square == 0:
        return 1.0
    limit = NEARLY_ZERO * root_mean_square
    small = sum(int((chunk.abs() < limit).sum()) for chunk in rows.chunks())
    return small / (rows.num_rows * rows.num_columns)


def live_dimensions(dimension_mean: list[float], dimension_variance: list[float]) -> float:
    """Return the share of dimensions with a variance of at least 1 % of all entries' mean square.

    A dimension below it says (nearly) the same in every context.
    """
    mean_square = sum(
        m * m + v for m, v in zip(dimension_mean, dimension_variance, strict=True)
    ) / len(dimension_mean)
    alive = sum(v > 0 and v >= NEARLY_ZERO * mean_square for v in dimension_variance)
    return alive / len(dimension_variance)
