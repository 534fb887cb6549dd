"""Test contexts for an isotropic normal distribution along random directions.

N: contexts given in one call, D: context dimensions, K: directions, J: knots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.precision import at_least_float32

NUM_KNOTS = 17
LAST_KNOT = 3.0


@dataclass(frozen=True)
class SigRegOptions:
    """Options of `SigReg`."""

    num_directions: int = option(64, "Random directions per call.", low=1, high=4096)
    resample: bool = option(True, "New directions at every training call, or always the first.")


def knots() -> tuple[Tensor, Tensor, Tensor]:
    """Knots t [J] on [0, 3], the characteristic function of N(0, 1) there, weights w [J].

    The weights are those of the trapezoidal rule on [-3, 3], folded onto its upper half, times the
    Gaussian window of the test.
    """
    t_J = torch.linspace(0, LAST_KNOT, NUM_KNOTS, dtype=torch.float64)
    target_J = torch.exp(-t_J.square() / 2)
    weights_J = 2 * (LAST_KNOT / (NUM_KNOTS - 1)) * target_J
    weights_J[[0, -1]] /= 2
    return t_J, target_J, weights_J


def epps_pulley(projections_NK: Tensor) -> Tensor:
    """Epps-Pulley statistic [K] of each column against N(0, 1).

    N Σ_j w_j [(mean_n cos(t_j u_n) - e^{-t_j²/2})² + (mean_n sin(t_j u_n))²]

    """
    t_J, target_J, weights_J = (values.to(projections_NK) for values in knots())
    cosine_JK = torch.stack([(t * projections_NK).cos().sum(0) for t in t_J])
    sine_JK = torch.stack([(t * projections_NK).sin().sum(0) for t in t_J])
    count = len(projections_NK)
    cosine_JK, sine_JK = torch.stack([cosine_JK, sine_JK]) / count
    distance_JK = (cosine_JK - target_J[:, None]).square() + sine_JK.square()
    return count * weights_J @ distance_JK


class SigReg(Regularizer):
    """Sketched isotropic Gaussian regularization: contexts look normal from every side.

        loss = mean_k EppsPulley(Z a_k)      a_k random on the unit sphere

    By Cramér and Wold, contexts Z are N(0, I) if all their projections are N(0, 1). The statistic
    is about 1.05 for N(0, I), whatever N and D, and 0.402 N for contexts that are all 0.

    Directions come from a generator seeded by the number of training calls, a buffer: a resumed
    run, and every process of a group, draws the same.

    Source: LeJEPA (Balestriero & LeCun, 2025); Epps & Pulley (1983).
    """

    Options = SigRegOptions
    options: SigRegOptions
    default_weight = 0.05
    calls: Tensor

    def __init__(self, context_dim: int, options: SigRegOptions | None = None) -> None:
        super().__init__(context_dim, options)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def directions(self) -> Tensor:
        """Unit vectors [D, K] of the next call, on the CPU."""
        generator = torch.Generator().manual_seed(int(self.calls))
        shape = self.context_dim, self.options.num_directions
        return F.normalize(torch.randn(shape, generator=generator), dim=0)

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Mean statistic over the directions, a scalar; tokens play no part."""
        contexts_ND = at_least_float32(contexts_ND)
        directions_DK = self.directions().to(contexts_ND)
        if self.training and self.options.resample:
            self.calls.add_(1)
        # Autocast would round the product to bfloat16.
        with torch.autocast(contexts_ND.device.type, enabled=False):
            return epps_pulley(contexts_ND @ directions_DK).mean()
