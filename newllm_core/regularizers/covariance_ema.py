"""Pull the covariance of contexts, averaged over calls, towards the identity."""

from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.precision import at_least_float32


@dataclass(frozen=True)
class CovarianceEmaOptions:
    """Options of `CovarianceEma`."""

    momentum: float = option(0.9, "Share of the past in the statistics.", low=0, high=0.9999)


class CovarianceEma(Regularizer):
    """Distance of a running covariance from the identity, the batch's share with its gradient.

        Σ̂ = μ Σ + (1-μ) mean_N(c cᵀ)      loss = ‖Σ̂ - I‖²_F / D

    with the running `Σ` [D, D] before this call, which carries no gradient; in training it then
    becomes `Σ̂`. A new one is I.

    The covariance is taken about zero, where contexts should be: about their mean it would not see
    a direction that all contexts share, which takes effective rank like any other. A mean of length
    `a` adds an eigenvalue of `a²`. N = 1 has a covariance too.

    The gradient carries the factor 1-μ of the batch's share: `4 (1-μ) c (Σ̂ - I) / (N D)`.
    With N < D one batch cannot have full rank; the average over about 1/(1-μ) batches can.

    Source: the covariance term of VICReg (arXiv 2105.04906, eq. 3-4) with the diagonal to 1 as in
    Barlow Twins (arXiv 2103.03230, eq. 1), on a running estimate.
    """

    Options = CovarianceEmaOptions
    default_weight = 0.5
    options: CovarianceEmaOptions
    covariance_DD: Tensor

    def __init__(self, context_dim: int, options: CovarianceEmaOptions | None = None) -> None:
        super().__init__(context_dim, options)
        self.register_buffer("covariance_DD", torch.eye(context_dim))

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Measure the distance of the running covariance from I, a scalar; tokens play no part."""
        contexts_ND = at_least_float32(contexts_ND)
        momentum, past_DD = self.options.momentum, self.covariance_DD.to(contexts_ND.dtype)
        # Autocast would round the product to bfloat16.
        with torch.autocast(contexts_ND.device.type, enabled=False):
            share = (1 - momentum) / len(contexts_ND)
            # Both factors have the same gradient: one product makes it, and it counts twice below.
            covariance_DD = torch.addmm(
                past_DD, contexts_ND.detach().T, contexts_ND, beta=momentum, alpha=share
            )
        if self.training:
            self.covariance_DD.copy_(covariance_DD.detach())
        identity_DD = torch.eye(self.context_dim, device=past_DD.device, dtype=past_DD.dtype)
        distance = (covariance_DD - identity_DD).square().sum() / self.context_dim
        return 2 * distance - distance.detach()
