"""From a loss to changed weights: gradients, their norm, clipping, Adam.

`Descent` is for batches of any size. `OneRowDescent` makes the same step from a single token, with
a third of the traffic to memory.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from newllm_core import distributed, native
from newllm_core.cores import at_once, available, undivided
from newllm_core.model.one_row import OuterProduct, collect


class Descent:
    """Steps of fused Adam.

    Args:
        parameters: what is trained.
        clip: largest gradient norm; 0 sets no limit.

    Attributes:
        optimizer: whose rate and state may be read and set between steps.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], clip: float) -> None:
        self.parameters = parameters
        self.clip = clip
        self.optimizer = torch.optim.Adam(parameters, fused=True)

    def backward(self, loss: Tensor, shared: Sequence[Tensor] = ()) -> Tensor:
        """Make the gradients; returns their norm, a scalar. Sums `shared` over processes."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.parameters, shared)
        return distributed.gradient_norm(self.parameters)

    def step(self, norm: Tensor) -> None:
        """Change the weights by the gradients, whose norm is `norm`."""
        # Most steps need no clipping: they are spared the pass over all gradients.
        if 0 < self.clip < norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.optimizer.step()


class OneRowDescent(Descent):
    """The same steps from a loss of one row, in one process.

    A matrix's gradient is an outer product: its norm is a product of norms, and it is made for the
    update to read while it is in the cache, one matrix at a time. Memory sees weights and moments
    only, read once and written once.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], clip: float) -> None:
        super().__init__(parameters, clip)
        self._products: list[OuterProduct] = []

    def backward(self, loss: Tensor, shared: Sequence[Tensor] = ()) -> Tensor:
        """Make the gradients; returns their norm, a scalar."""
        with undivided(), collect() as self._products:
            norm = super().backward(loss, shared)
        norms = [left.norm() * right.norm() for _, left, right in self._products]
        return nn.utils.get_total_norm([norm, *norms])

    def step(self, norm: Tensor) -> None:
        """Change the weights by the gradients, whose norm is `norm`."""
        with undivided():
            super().step(norm)  # of everything that is not a matrix: small vectors
        # As `clip_grads_with_norm_` scales everything else.
        scale = self.clip / (norm + 1e-6) if 0 < self.clip < norm else 1.0
        if native.library() is None:
            self._update(self._products, scale)  # each operation uses all cores
        else:
            with undivided():
                count = available()
                parts = [self._products[core::count] for core in range(count)]
                at_once(*(partial(self._update, part, scale) for part in parts))
        self._products = []

    def _update(self, products: Sequence[OuterProduct], scale: Tensor | float) -> None:
        for product in products:
            self._update_matrix(product, scale)

    def _update_matrix(self, product: OuterProduct, scale: Tensor | float) -> None:
        """Adam on the rows that have a gradient: without one and without moments, none moves."""
        group = self.optimizer.param_groups[0]
        state = self._state(product.matrix)
        rows = len(product.left)
        state["step"] += 1
        tensors = (
            product.matrix.detach()[:rows],
            state["exp_avg"][:rows],
            state["exp_avg_sq"][:rows],
        )
        left, right = product.left * scale, product.right
        if native.suits(*tensors, left, right):
            native.adam_outer(
                *tensors,
                left,
                right,
                step=int(state["step"]),
                rate=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
            )
            return
        # What `torch.optim.Adam(fused=True)` calls, without a tenth of a millisecond of checks.
        torch._fused_adam_(
            [product.matrix.detach()[:rows]],
            [torch.outer(product.left * scale, product.right)],
            [state["exp_avg"][:rows]],
            [state["exp_avg_sq"][:rows]],
            [],
            [state["step"]],
            amsgrad=False,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _state(self, matrix: Tensor) -> dict[str, Tensor]:
        """What the optimizer itself would keep of the matrix."""
        state: dict[str, Tensor] = self.optimizer.state[matrix]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(matrix)
            state["exp_avg_sq"] = torch.zeros_like(matrix)
        return state
