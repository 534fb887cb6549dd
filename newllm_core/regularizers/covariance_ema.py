"""Pull the covariance of contexts, averaged over calls, towards the identity."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core import distributed
from newllm_core.config import option
from newllm_core.precision import at_least_float32
from newllm_core.regularizers.base import Regularizer


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
    distributed = True
    options: CovarianceEmaOptions
    covariance_DD: Tensor

    def __init__(self, context_dim: int, options: CovarianceEmaOptions | None = None) -> None:
        super().__init__(context_dim, options)
        self.register_buffer("covariance_DD", torch.eye(context_dim))

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Distance of the running covariance from I, a scalar; tokens play no part."""
        contexts_ND = at_least_float32(contexts_ND)
        past_DD = self.covariance_DD.to(contexts_ND.dtype)
        # Autocast would round the product to bfloat16.
        with torch.autocast(contexts_ND.device.type, enabled=False):
            loss, covariance_DD = _Distance.apply(contexts_ND, past_DD, self.options.momentum)
        if self.training:
            self.covariance_DD.copy_(covariance_DD)
        return loss


class _Distance(torch.autograd.Function):
    """The loss and `Σ̂`: written out, one context costs a few passes over [D, D] instead of twenty.

    Both factors of `cᵀ c` receive the same gradient, so one matrix product makes it.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        contexts_ND: Tensor,
        past_DD: Tensor,
        momentum: float,
    ) -> tuple[Tensor, Tensor]:
        size, (_, dims) = distributed.size(), contexts_ND.shape
        if size == 1:  # one pass over [D, D] less
            share = (1 - momentum) / len(contexts_ND)
            covariance_DD = torch.addmm(
                past_DD, contexts_ND.T, contexts_ND, beta=momentum, alpha=share
            )
        else:
            products_DD = contexts_ND.T @ contexts_ND
            products_DD, rows = distributed.total_and_rows(products_DD, len(contexts_ND))
            share = (1 - momentum) / rows.item()
            covariance_DD = torch.add(momentum * past_DD, products_DD, alpha=share)
        distance_DD = covariance_DD.clone()
        distance_DD.diagonal().sub_(1)
        ctx.save_for_backward(contexts_ND, distance_DD)
        # Gradients are averaged over processes, and a row is in one process only.
        ctx.scale = 4 * share * size / dims
        ctx.mark_non_differentiable(covariance_DD)
        return torch.linalg.vector_norm(distance_DD).square() / dims, covariance_DD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        contexts_ND, distance_DD = ctx.saved_tensors
        return (contexts_ND @ distance_DD).mul_(ctx.scale * grad), None, None
