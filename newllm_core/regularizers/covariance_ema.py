"""Pull the covariance of contexts, averaged over calls, towards the identity."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core.config import option
from newllm_core.parallel import collectives as distributed
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
        covariance_DD = past_DD if self.training else past_DD.clone()
        # Autocast would round the product to bfloat16.
        with torch.autocast(contexts_ND.device.type, enabled=False):
            share = _mix_in(covariance_DD, contexts_ND.detach(), self.options.momentum)
            loss: Tensor = _Distance.apply(contexts_ND, covariance_DD, share)
        if self.training:
            self.covariance_DD.copy_(covariance_DD)  # nothing where it is the same tensor
        return loss


def _mix_in(covariance_DD: Tensor, contexts_ND: Tensor, momentum: float) -> float:
    """Let `Σ` become `Σ̂`, in place; returns the share of one row."""
    if distributed.size() == 1:  # one pass over [D, D] less
        share = (1 - momentum) / len(contexts_ND)
        covariance_DD.addmm_(contexts_ND.T, contexts_ND, beta=momentum, alpha=share)
        return share
    products_DD = contexts_ND.T @ contexts_ND
    products_DD, rows = distributed.total_and_rows(products_DD, len(contexts_ND))
    share = (1 - momentum) / rows.item()
    covariance_DD.mul_(momentum).add_(products_DD, alpha=share)
    return share


class _Distance(torch.autograd.Function):
    """The loss of `Σ̂`, whose gradient is written out: a few passes over [D, D] and not twenty.

    Both factors of `cᵀ c` receive the same gradient, so one matrix product makes it.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        contexts_ND: Tensor,
        covariance_DD: Tensor,
        share: float,
    ) -> Tensor:
        dims = contexts_ND.shape[1]
        distance_DD = covariance_DD.clone()
        distance_DD.diagonal().sub_(1)
        ctx.save_for_backward(contexts_ND, distance_DD)
        # Gradients are averaged over processes, and a row is in one process only.
        ctx.scale = 4 * share * distributed.size() / dims
        return torch.linalg.vector_norm(distance_DD).square() / dims

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        contexts_ND, distance_DD = ctx.saved_tensors
        return (contexts_ND @ distance_DD).mul_(ctx.scale * grad), None, None
