"""Keep the variance of every dimension up, with statistics of O(D) memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.moments import register_moments, running_moments
from newllm_core.runtime.precision import at_least_float32


@dataclass(frozen=True)
class EmaVarianceOptions:
    """Options of `EmaVariance`."""

    momentum: float = option(0.99, "Share of the past in the statistics.", low=0, high=0.9999)
    epsilon: float = option(
        1e-2, "Added to variances: dimensions far below it count as equally dead.", low=1e-8
    )
    form: str = option(
        "per-dimension",
        "per-dimension: mean of 1/variance; mean: 1/(mean variance), which few dimensions satisfy.",
        choices=("per-dimension", "mean"),
    )
    gradient: str = option(
        "live",
        "live: through the batch; detached: none, as first published (there with form = mean and "
        "epsilon = 1e-6), which trains nothing.",
        choices=("live", "detached"),
    )


class EmaVariance(Regularizer):
    """Inverse of a running variance to which the batch contributes with its gradient.

        v̂ = μ v + (1-μ) mean_N((c - m)²)      loss = mean_d 1/(v̂_d + ε) / (1-μ)

    with the running mean `m` [D] and variance `v` [D] before this call, which carry no gradient;
    in training they then become `μ m + (1-μ) mean_N(c)` and `v̂`. `form="mean"` has
    `1/(mean_d v̂_d + ε)` instead, the form first published.

    The gradient passes through the batch's share `1-μ` of `v̂`, and the division takes that factor
    out: the gradient is `-2 (c - m) / (N D (v̂ + ε)²)` at every momentum. The value is not
    comparable across momenta, only the gradient is.

    `gradient="detached"` is the published loop, value for value, where contexts come one by one,
    with `form="mean"` and ε = 1e-6. The first call has loss 0 and only starts the mean, at its
    contexts' mean; every later one has `1/(mean_d v_d + ε)` with the variance before it, and then
    updates mean and variance as above. No gradient: training is left to the other loss terms.

    ε = 0.01 bounds what a dead dimension may ask for. The pull on a dimension goes as
    `√v/(v + ε)²`, at most `0.3 ε^-1.5`: 331 times that of a healthy one here, 325,000 times with
    ε = 1e-4, where clipping would leave nothing of any other gradient.

    Only a lack of variance is penalised: contexts whose norm nothing bounds (no LayerNorm) grow,
    and may run from their running mean all together instead of from each other.

    Source: the method as first published for context-vector models, its gradient restored.
    """

    Options = EmaVarianceOptions
    options: EmaVarianceOptions
    mean_D: Tensor
    variance_D: Tensor
    started: Tensor

    def __init__(self, context_dim: int, options: EmaVarianceOptions | None = None) -> None:
        super().__init__(context_dim, options)
        register_moments(self)
        if self.options.gradient == "detached":
            self.register_buffer("started", torch.tensor(False))

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Return inverse running variance, a scalar; tokens play no part."""
        if self.options.gradient == "detached":
            return self._published(at_least_float32(contexts_ND.detach()))
        _, variance_D = running_moments(self, at_least_float32(contexts_ND))
        return self._inverse(variance_D) / (1 - self.options.momentum)

    def _published(self, contexts_ND: Tensor) -> Tensor:
        """Return the value that knows nothing of `contexts_ND` yet; then learn from them."""
        started = self.started.clone()
        value = torch.where(started, self._inverse(self.variance_D.to(contexts_ND.dtype)), 0.0)
        if self.training:
            variance_D = self.variance_D.clone()
            running_moments(self, contexts_ND)
            self.mean_D.copy_(torch.where(started, self.mean_D, contexts_ND.mean(0)))
            self.variance_D.copy_(torch.where(started, self.variance_D, variance_D))
            self.started.fill_(True)
        return value

    def _inverse(self, variance_D: Tensor) -> Tensor:
        if self.options.form == "mean":
            return 1 / (variance_D.mean() + self.options.epsilon)
        return (1 / (variance_D + self.options.epsilon)).mean()
