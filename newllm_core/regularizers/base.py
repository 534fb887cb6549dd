"""What a regularizer is. To write one, extend `Regularizer` and register it as an entry point.

N: contexts given in one call, D: context dimensions.
"""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from newllm_core.config.option import NoOptions


class Regularizer(nn.Module):
    """Maps contexts to a finite scalar whose gradient spreads them.

    Statistics that live across calls are buffers; they change only while `self.training`.
    Buffers are float32 and hold what N(0, I) has until contexts were seen.

    A class declares how it behaves in class attributes; `newllm_core.testing.check_regularizer`
    holds it to them.

    Attributes:
        Options: frozen dataclass of options (`newllm_core.config.option` documents a field).
        default_weight: `phase1.dist_reg_weight` where the user sets none; fits the loss's scale.
        has_gradient: whether the loss trains anything.
        uses_tokens: whether token ids play a part.
        uses_order: whether the order of the contexts does: rows are neighbours in the text then,
            with streams one stream after another.
        context_dim: D.
    """

    Options: ClassVar[type[Any]] = NoOptions
    default_weight: ClassVar[float] = 0.2
    has_gradient: ClassVar[bool] = True
    uses_tokens: ClassVar[bool] = False
    uses_order: ClassVar[bool] = False

    def __init__(self, context_dim: int, options: Any = None) -> None:  # noqa: ANN401
        super().__init__()
        self.context_dim = context_dim
        self.options = self.Options() if options is None else options

    @abstractmethod
    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Return the loss of `contexts_ND` [N, D], read at token ids `tokens_N` [N]: a scalar."""

    def forward(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Check shapes, then `loss`.

        Raises:
            ValueError: contexts are not [N, context_dim] with N >= 1, or tokens are not [N].
        """
        if contexts_ND.ndim != 2 or contexts_ND.shape[1] != self.context_dim:
            shape = list(contexts_ND.shape)
            raise ValueError(f"contexts have shape {shape}, expected [N, {self.context_dim}]")
        if len(contexts_ND) == 0 or tokens_N.shape != contexts_ND.shape[:1]:
            raise ValueError(
                f"expected N >= 1 contexts and as many tokens, "
                f"got {len(contexts_ND)} and {list(tokens_N.shape)}"
            )
        return self.loss(contexts_ND, tokens_N=tokens_N)
