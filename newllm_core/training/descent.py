"""From a loss to changed weights: gradients, their norm, clipping, Adam.

`Descent` is for batches of any size. `NarrowDescent` and `OneRowDescent` make the same steps, the
second from a single token, with a fraction of the traffic to memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from newllm_core.cores import at_once, undivided
from newllm_core.model import narrow
from newllm_core.model.narrow import NarrowGradient, drop_copies, narrow_copy
from newllm_core.model.one_row import OuterProduct, collect, put_off, taken
from newllm_core.native.narrow import adam_narrow, sum_of_squares
from newllm_core.parallel import collectives as distributed
from newllm_core.training.matrix_step import MatrixStep


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

    def scale(self, norm: Tensor) -> Tensor | float:
        """Of gradients that are kept apart, as `clip_grads_with_norm_` scales the others."""
        return self.clip / (norm + 1e-6) if 0 < self.clip < norm else 1.0

    def state_of(self, matrix: Tensor) -> dict[str, Tensor]:
        """What the optimizer itself would keep of the matrix."""
        state: dict[str, Tensor] = self.optimizer.state[matrix]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(matrix)
            state["exp_avg_sq"] = torch.zeros_like(matrix)
        return state

    def finish(self) -> None:
        """Make what was put off: nothing here."""

    @contextmanager
    def finished_afterwards(self) -> Iterator[None]:
        """Nothing is put off for longer than this."""
        try:
            yield
        finally:
            self.finish()


class NarrowDescent(Descent):
    """The same steps in one process, whose matrix products may be made in bfloat16.

    Their gradients are read in bfloat16 as the products gave them, and the weights that the next
    products read are written with the step: weights and moments are read once and written once,
    and nothing else as large is.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], clip: float) -> None:
        super().__init__(parameters, clip)
        self._gradients: list[NarrowGradient] = []
        self._keeps_copies = False

    @contextmanager
    def finished_afterwards(self) -> Iterator[None]:
        """Inside, nobody else changes the weights."""
        self._keeps_copies = True
        try:
            yield
        finally:
            self._keeps_copies = False
            drop_copies(self.parameters)

    def backward(self, loss: Tensor, shared: Sequence[Tensor] = ()) -> Tensor:
        """Make the gradients; returns their norm, a scalar."""
        with narrow.collect() as self._gradients:
            norm = super().backward(loss, shared)
        with undivided():
            squares = at_once(*(partial(sum_of_squares, g) for _, g in self._gradients))
        return (norm.double().square() + sum(squares)).sqrt().to(norm.dtype)

    def step(self, norm: Tensor) -> None:
        """Change the weights by the gradients, whose norm is `norm`."""
        super().step(norm)  # of everything whose gradient is whole
        drop_copies(p for p in self.parameters if p.grad is not None)
        scale = self.scale(norm)
        with undivided():
            at_once(*(partial(self._update, *given, float(scale)) for given in self._gradients))
        self._gradients = []

    def _update(self, matrix: Tensor, gradient: Tensor, scale: float) -> None:
        group, state, rows = self.optimizer.param_groups[0], self.state_of(matrix), len(gradient)
        state["step"] += 1
        copy = narrow_copy(matrix) if self._keeps_copies else torch.empty_like(gradient)
        adam_narrow(
            matrix.detach()[:rows],
            state["exp_avg"][:rows],
            state["exp_avg_sq"][:rows],
            gradient,
            copy[:rows],
            scale=scale,
            step=int(state["step"]),
            rate=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
        )


class OneRowDescent(Descent):
    """The same steps from a loss of one row, in one process.

    A matrix's gradient is an outer product: its norm is a product of norms, and it is never made
    whole. Where it can be, a matrix's step is put off until the next token's product reads the
    matrix: memory sees weights and moments only, read once and written once per token, and read
    once more by the backward pass.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], clip: float) -> None:
        super().__init__(parameters, clip)
        self._gradients: list[OuterProduct] = []

    def backward(self, loss: Tensor, shared: Sequence[Tensor] = ()) -> Tensor:
        """Make the gradients; returns their norm, a scalar."""
        with undivided(look_out=True), collect() as self._gradients:
            norm = super().backward(loss, shared)
        norms = [left.norm() * right.norm() for _, left, right in self._gradients]
        return nn.utils.get_total_norm([norm, *norms])

    def step(self, norm: Tensor) -> None:
        """Change the weights by the gradients, whose norm is `norm`."""
        self.finish()
        with undivided():
            super().step(norm)  # of everything that is not a matrix: small vectors
        scale = self.scale(norm)
        group = self.optimizer.param_groups[0]
        for gradient in self._gradients:
            step = MatrixStep(gradient, scale, self.state_of(gradient.matrix), group)
            if step.can_multiply:
                put_off(gradient.matrix, step)
            else:
                step.make()
        self._gradients = []

    def finish(self) -> None:
        """Make what was put off: before anybody else reads the weights."""
        steps = [step for p in self.parameters if (step := taken(p)) is not None]
        with undivided():
            at_once(*(step.make for step in steps))
