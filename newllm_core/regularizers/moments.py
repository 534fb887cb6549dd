"""Running moments, which several regularizers share. N: contexts, D: dimensions."""

from typing import Any

import torch
from torch import Tensor


def register_moments(regularizer: Any) -> None:  # noqa: ANN401 - it gets two buffers
    """Add the running mean 0 and variance 1, `mean_D` and `variance_D` [D]."""
    regularizer.register_buffer("mean_D", torch.zeros(regularizer.context_dim))
    regularizer.register_buffer("variance_D", torch.ones(regularizer.context_dim))


def running_moments(regularizer: Any, contexts_ND: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return running mean and variance after one more batch; in training they are kept.

        m' = μ m + (1-μ) mean_N(c)      v' = μ v + (1-μ) mean_N((c - m)²)

    with μ = `options.momentum`. The batch's share carries its gradient. Deviations are taken from
    the mean `m` before the batch: a batch of one has a variance too, and a batch that moved away as
    a whole is not mistaken for one that shrank.
    """
    momentum = regularizer.options.momentum
    mean_D = regularizer.mean_D.to(contexts_ND.dtype)
    deviations_ND = contexts_ND - mean_D
    new_mean_D = mean_D + (1 - momentum) * deviations_ND.mean(0)
    spread_D = deviations_ND.square().mean(0)
    variance_D = regularizer.variance_D.to(contexts_ND.dtype)
    new_variance_D = momentum * variance_D + (1 - momentum) * spread_D
    if regularizer.training:
        regularizer.mean_D.copy_(new_mean_D.detach())
        regularizer.variance_D.copy_(new_variance_D.detach())
    return new_mean_D, new_variance_D
