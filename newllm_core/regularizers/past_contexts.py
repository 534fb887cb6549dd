"""Push every context away from the few before it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.precision import at_least_float32

# Cosines of shorter contexts are damped: a context of zeros has cosine 0 and a finite gradient.
SMALLEST_NORM = 1e-6


@dataclass(frozen=True)
class PastContextsOptions:
    """Options of `PastContexts`."""

    num_contexts: int = option(10, "How many contexts back each one is compared.", low=1)


class PastContexts(Regularizer):
    """Mean squared cosine with the contexts just before.

        loss = mean_n mean_{j=1..k} cos(c_n, c_{n-j})²

    Rows are taken in reading order. The first rows of a batch see the last rows of the call before
    (a buffer [k, D] of directions, and in training only); before the first call there are fixed
    random directions, so that a batch of one always has something to differ from. The past carries
    no gradient: a context moves away from it, not it away from the context.

    The loss is 0 once any k + 1 contexts in a row are orthogonal. Contexts that go round in k + 1
    dimensions reach that: for k + 1 < D it does not ask for all of them.
    """

    Options = PastContextsOptions
    uses_order = True
    options: PastContextsOptions
    past_kD: Tensor

    def __init__(self, context_dim: int, options: PastContextsOptions | None = None) -> None:
        super().__init__(context_dim, options)
        shape = self.options.num_contexts, context_dim
        directions_kD = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("past_kD", F.normalize(directions_kD, dim=1))

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Return mean squared cosine, a scalar between 0 and 1; tokens play no part."""
        directions_ND = F.normalize(at_least_float32(contexts_ND), dim=1, eps=SMALLEST_NORM)
        num_contexts = len(self.past_kD)
        rows_D = torch.cat([self.past_kD.to(directions_ND.dtype), directions_ND.detach()])
        # A view: row n sees rows n to n+k of `rows_D`, without a copy of them or an [N, N] product.
        windows_NDk = rows_D.unfold(0, num_contexts, 1)[: len(directions_ND)]
        # Autocast would round the products to bfloat16.
        with torch.autocast(directions_ND.device.type, enabled=False):
            cosines_N1k = torch.bmm(directions_ND[:, None], windows_NDk)
        if self.training:
            self.past_kD.copy_(rows_D[-num_contexts:])
        return cosines_N1k.square().mean()
