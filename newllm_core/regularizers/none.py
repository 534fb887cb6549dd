"""No regularizer: the control that shows what the others do."""

from torch import Tensor

from newllm_core.regularizers.base import Regularizer


class NoRegularizer(Regularizer):
    """The loss 0, without a gradient. Contexts trained with it may collapse."""

    default_weight = 0.0
    has_gradient = False

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Return zero, a scalar without gradient."""
        return contexts_ND.new_zeros(())
