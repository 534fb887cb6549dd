"""Pull every dimension towards mean 0 and variance 1."""

from dataclasses import dataclass

from torch import Tensor

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.moments import register_moments, running_moments
from newllm_core.runtime.precision import at_least_float32


@dataclass(frozen=True)
class DistributionOptions:
    """Options of `Distribution`."""

    statistics: str = option(
        "batch",
        "batch: of this call alone; ema: running, for small batches.",
        choices=("batch", "ema"),
    )
    momentum: float = option(0.99, "Share of the past, with statistics = ema.", low=0, high=0.9999)


class Distribution(Regularizer):
    """Squared distance of the first two moments from those of N(0, I), each dimension by itself.

        loss = mean_d m_d² + mean_d (v_d - 1)²

    `statistics="batch"`: mean and population variance over the N contexts; v = 0 for N = 1, where
    only the mean has a gradient.

    `statistics="ema"`: with running moments `m`, `v` (buffers [D], no gradient) before this call,

        m̂ = μ m + (1-μ) mean_N(c)      v̂ = μ v + (1-μ) mean_N((c - m)²)

    take their place, become the buffers in training, and the loss is divided by (1-μ). The running
    error multiplies the batch's gradient, so the loss pulls as hard as with `batch` whenever the
    batch looks like the running statistics, whatever the momentum.

    Correlated dimensions are not seen: contexts may fill a line and have loss 0.

    Source: moment matching; the variance term without VICReg's hinge (Bardes et al., ICLR 2022,
    arXiv 2105.04906, eq. 1), so that too much variance is penalised too.
    """

    Options = DistributionOptions
    options: DistributionOptions

    def __init__(self, context_dim: int, options: DistributionOptions | None = None) -> None:
        super().__init__(context_dim, options)
        if self.options.statistics == "ema":
            register_moments(self)

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Return distance from zero mean and unit variance, a scalar; tokens play no part."""
        contexts_ND = at_least_float32(contexts_ND)
        if self.options.statistics == "batch":
            mean_D = contexts_ND.mean(0)
            variance_D, share = (contexts_ND - mean_D).square().mean(0), 1.0
        else:
            mean_D, variance_D = running_moments(self, contexts_ND)
            share = 1 - self.options.momentum
        return (mean_D.square().mean() + (variance_D - 1).square().mean()) / share
