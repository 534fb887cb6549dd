"""Variance and covariance terms of VICReg on the contexts of one call.

N: contexts given in one call, D: context dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.precision import at_least_float32

# Added to variances: the square root's gradient stays finite.
EPSILON = 1e-4


@dataclass(frozen=True)
class VicRegOptions:
    """Options of `VicReg`."""

    variance_weight: float = option(25.0, "Weight of the variance term.", low=0)
    covariance_weight: float = option(1.0, "Weight of the covariance term.", low=0)
    target: float = option(1.0, "Standard deviation below which a dimension is pulled.", low=0)


def variance_loss(variance_D: Tensor, target: float) -> Tensor:
    """`mean_d relu(target - sqrt(v_d + ε))`."""
    return torch.relu(target - (variance_D + EPSILON).sqrt()).mean()


def covariance_loss(covariance_DD: Tensor) -> Tensor:
    """`Σ_{i≠j} C_ij² / D`."""
    off_diagonal_DD = covariance_DD - torch.diag(torch.diagonal(covariance_DD))
    return off_diagonal_DD.square().sum() / len(covariance_DD)


class VicReg(Regularizer):
    """Hinge on every dimension's deviation, and no correlation between dimensions.

        loss = 25 mean_d relu(1 - sqrt(C_dd + ε)) + Σ_{i≠j} C_ij² / D

    with the covariance C of the call's contexts, divided by N - 1. A single context has no
    covariance, so the loss has no gradient there: use an engine with batches.

    Source: VICReg (Bardes, Ponce, LeCun, ICLR 2022, arXiv 2105.04906), eq. 1-4, without its
    invariance term, which is newllm's own objective.
    """

    Options = VicRegOptions
    options: VicRegOptions
    default_weight = 0.5

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """The two terms, a scalar; tokens play no part."""
        contexts_ND = at_least_float32(contexts_ND)
        centred_ND = contexts_ND - contexts_ND.mean(0)
        # Autocast would round the product to bfloat16.
        with torch.autocast(contexts_ND.device.type, enabled=False):
            covariance_DD = centred_ND.T @ centred_ND / max(1, len(centred_ND) - 1)
        variance_D = torch.diagonal(covariance_DD)
        return self.options.variance_weight * variance_loss(
            variance_D, self.options.target
        ) + self.options.covariance_weight * covariance_loss(covariance_DD)
