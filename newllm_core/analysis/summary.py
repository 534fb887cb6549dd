"""Many numbers as a few: summaries, means with their errors, cosines; and numbers drawn at random.

Shapes: P passages, T values of each, S contexts in a row, C context_dim.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SUMMARY = ("mean", "median", "std", "min", "max")
# Fewer passages are cut into so many parts together, which then count as passages.
PARTS = 8


def summary(values: Tensor) -> dict[str, float]:
    """Return mean, median, population standard deviation, minimum and maximum of `values` [n]."""
    numbers = values.double().cpu().numpy()
    return {name: float(getattr(np, name)(numbers)) for name in SUMMARY}


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return cosine of the vectors `a` and `b` [..., D] in float64 [...].

    Two zero vectors count as equal (1), one as orthogonal (0): they look as alike as they are.
    """
    # The squares of anything shorter vanish.
    a, b = (F.normalize(x.double(), dim=-1, eps=1e-150) for x in (a, b))
    both_zero = ~(a.any(dim=-1) | b.any(dim=-1))
    return torch.where(both_zero, 1.0, (a * b).sum(-1).clamp(-1, 1))


def identity_cosine(trajectory_PSC: Tensor) -> dict[str, float]:
    """Return `mean` and `std` of the cosine of c_{t-1} and c_t."""
    cosines = torch.cat([cosine(passage_SC[:-1], passage_SC[1:]) for passage_SC in trajectory_PSC])
    return {"mean": float(cosines.mean()), "std": float(cosines.std(correction=0))}


def gaussian_like(values: Tensor, seed: int) -> Tensor:
    """Return Gaussian numbers in the shape and type of `values`; the same ones on every device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return drawn.to(values.device)


def mean_and_error(values_PT: Tensor) -> dict[str, float]:
    """Return `mean` of `values_PT` and its standard error, `stderr`, that of the passage means.

    Few passages are divided in time (batch means); fewer than two values have an error of 0.
    """
    values_PT = values_PT.double()
    passages, length = values_PT.shape
    parts = min(-(-PARTS // max(1, passages)), length)
    if parts > 1:
        values_PT = values_PT[:, length % parts :].reshape(passages * parts, -1)
    means = values_PT.mean(dim=1)
    error = float(means.std()) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return {"mean": float(means.mean()), "stderr": error}
