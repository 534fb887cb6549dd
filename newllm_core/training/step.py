"""From a loss to changed weights, in both phases."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newllm_core.parallel import collectives
from newllm_core.parallel.dtensors import is_dtensor


def by_sharding(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Divide parameters into those of a sharded module and the others; torch mixes no two kinds."""
    sharded = [p for p in parameters if is_dtensor(p)]
    whole = [p for p in parameters if not is_dtensor(p)]
    return [alike for alike in (sharded, whole) if alike]


class OptimizerStep:
    """Makes gradients, averages them over processes, clips them and steps.

    Args:
        optimizer: of the parameters that are trained.
        clip: largest gradient norm; 0 sets no limit.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float) -> None:
        self.optimizer = optimizer
        self.clip = clip
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def backward(self, loss: Tensor, also_sum: Sequence[Tensor] = ()) -> Tensor:
        """Make the gradients of `loss`; returns their norm, a scalar.

        Args:
            loss: a scalar; without a gradient where this process has no row of the batch.
            also_sum: tensors to replace by their sums over processes, in the same message.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        collectives.average_gradients(self.parameters, also_sum)
        return collectives.gradient_norm(self.parameters)

    def apply(self, norm: Tensor, rate: float) -> None:
        """Change the weights by the gradients, whose norm is `norm`, at learning rate `rate`."""
        # Most steps need no clipping: they are spared the pass over all gradients.
        if 0 < self.clip < norm:
            for alike in by_sharding(self.parameters):
                nn.utils.clip_grads_with_norm_(alike, self.clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
