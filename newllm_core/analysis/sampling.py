"""What is drawn at random, a mean over passages, and how far sampling may have moved it.

Shapes: P passages, T values of each.
"""

import torch
from torch import Tensor

# Fewer passages are cut into so many parts together, which then count as passages.
PARTS = 8


def gaussian_like(values: Tensor, seed: int) -> Tensor:
    """Return Gaussian numbers in the shape and type of `values`; the same ones on every device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return drawn.to(values.device)


def mean_and_error(values_PT: Tensor) -> dict[str, float]:
    """Return mean of `values_PT` and its standard error.

    Neighbouring tokens are not independent, passages are: the error is that of the passage means.
    Few passages are divided in time (batch means); fewer than two values have an error of 0.
    """
    means = passage_means(values_PT)
    error = float(means.std()) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return {"mean": float(means.mean()), "stderr": error}


def passage_means(values_PT: Tensor) -> Tensor:
    """Return the mean of every passage, or of equal parts of few, float64."""
    values_PT = values_PT.double()
    passages, length = values_PT.shape
    parts = min(-(-PARTS // max(1, passages)), length)
    if parts > 1:
        values_PT = values_PT[:, length % parts :].reshape(passages * parts, -1)
    return values_PT.mean(dim=1)
