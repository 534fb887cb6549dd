"""Many numbers as five, and the cosine that every section shares."""

import torch
from torch import Tensor


def summary(values: Tensor) -> dict[str, float]:
    """Return mean, median, population standard deviation, minimum and maximum of `values` [n]."""
    ordered = values.double().sort().values
    count = len(ordered)
    # torch.median takes the lower of two middle values; the usual median is their mean.
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return {
        "mean": float(ordered.mean()),
        "median": float(median),
        "std": float(ordered.std(correction=0)),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
    }


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return cosine of the vectors `a` and `b` [..., D] in float64 [...].

    A zero vector has no direction: two of them count as equal (1), one as orthogonal (0), so that
    contexts which are all zero look as alike as they are.
    """
    a, b = a.double(), b.double()
    norm_a, norm_b = a.norm(dim=-1), b.norm(dim=-1)
    both_zero = (norm_a == 0) & (norm_b == 0)
    a = a / torch.where(norm_a == 0, 1.0, norm_a)[..., None]
    b = b / torch.where(norm_b == 0, 1.0, norm_b)[..., None]
    return torch.where(both_zero, 1.0, (a * b).sum(-1).clamp(-1, 1))
