"""What every cell promises, whatever its formula.

Shapes: N rows, C context_dim, E embed_dim.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.functional import jvp

from newllm_core.model.cells.base import Cell
from newllm_core.plugins.guard import one_line
from newllm_core.runtime.repeatable import seeded
from newllm_core.testing.modules import (
    NOTHING,
    check_close,
    check_initialise,
    check_parameter_gradients,
    check_tensors,
    moved,
    no_global_numbers,
    values,
)
from newllm_core.testing.report import Failed, checks_of, run_checks

# Unequal sizes that many widths divide.
CONTEXT_DIM, EMBED_DIM, ROWS = 24, 16, 12
# Of initial matrices: wide enough that no part of a formula is lost in rounding.
STD = 0.3
NAMES = ("context", "token")
EVERY = slice(None)
Pair = tuple[Tensor, Tensor]


def check_cell(cell: type[Cell], options: Any = None) -> None:  # noqa: ANN401
    """Hold a cell to its contract, with these of its `Options` or the defaults.

    Raises:
        ConformanceError: with one line for each way in which checks failed.
    """
    run_checks(cell, checks_of(_Case(cell, options)))


class _Case:
    def __init__(self, cell: type[Cell], options: Any) -> None:  # noqa: ANN401
        self.type = cell
        self.options = options
        self.given = values(ROWS, CONTEXT_DIM, seed=1), values(ROWS, EMBED_DIM, seed=2)

    def bare(self) -> Cell:
        with seeded(0):
            return self.type(CONTEXT_DIM, EMBED_DIM, self.options)

    def make(self, seed: int = 0) -> Cell:
        cell = self.bare()
        cell.initialise(STD, torch.Generator().manual_seed(seed))
        return cell.double()

    def run(self, cell: Cell, *given: Tensor) -> Pair:
        context, token = given or self.given
        found = cell(context=context, token=token)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise Failed(f"forward returned a {type(found).__name__}; return (context, token)")
        for name, value, before in zip(NAMES, found, (context, token), strict=True):
            if not isinstance(value, Tensor) or value.shape != before.shape:
                shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise Failed(
                    f"the {name} went in with shape {list(before.shape)} and came out with "
                    f"{shape}; C = {CONTEXT_DIM}, E = {EMBED_DIM} here, and both keep their shape"
                )
            if not value.isfinite().all():
                raise Failed(f"the new {name} is not finite for ordinary input")
        return found

    def compare(
        self, found: Pair, advice: str, rows: slice = EVERY, tolerance: float = NOTHING
    ) -> None:
        """Compare with what `rows` become in one call of float64."""
        for one, other in zip(found, self.run(self.make()), strict=True):
            check_close(one, other[rows], tolerance, advice)

    def check_parameters(self) -> None:
        if not list(self.bare().parameters()):
            raise Failed("it has none: there is nothing to train")

    def check_meta_device(self) -> None:
        try:
            with torch.device("meta"):
                self.bare()
        except Exception as error:
            raise Failed(
                f"making one on torch's meta device, where parameters are counted, raised "
                f"{one_line(error)}; read no values of tensors in __init__"
            ) from error

    def check_shapes(self) -> None:
        for name, value in zip(NAMES, self.run(self.make()), strict=True):
            if value.dtype != torch.float64:
                raise Failed(
                    f"the {name} comes out as {value.dtype} where everything is float64; make "
                    "tensors where the context is, e.g. torch.zeros_like(context)"
                )

    def check_batch_of_one(self) -> None:
        found = self.run(self.make(), *(each[:1] for each in self.given))
        self.compare(found, "a row alone must become what it becomes among others", slice(1))

    def check_leading_dimensions(self) -> None:
        context, token = self.run(self.make(), *(each.unflatten(0, (3, 4)) for each in self.given))
        found = context.flatten(0, 1), token.flatten(0, 1)
        self.compare(found, "work on the last dimension (dim=-1), whatever comes before it")

    def check_rows(self) -> None:
        other = [torch.cat([3 * each[:1] + 1, each[1:]]) for each in self.given]
        context_NC, token_NE = self.run(self.make(), *other)
        advice = "another row was changed, and rows are different texts: mix none of them"
        self.compare((context_NC[1:], token_NE[1:]), advice, slice(1, None))

    def check_float32(self) -> None:
        found = self.run(self.make().float(), *(each.float() for each in self.given))
        self.compare(found, "float64 says otherwise", tolerance=1e-4)
        if found[0].dtype != torch.float32:
            raise Failed(f"the context comes out as {found[0].dtype} where everything is float32")

    def check_bfloat16(self) -> None:
        results = []
        for enabled in (False, True):
            cell, state = self.make().float(), [each.float() for each in self.given]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                try:
                    # As two cells of a block do: what the first returns may be narrow.
                    state = list(self.run(cell, *self.run(cell, *state)))
                    total = torch.cat([each.flatten().float() for each in state]).sum()
                    if total.requires_grad:  # the parameters of a reservoir need no gradient
                        total.backward()
                except RuntimeError as error:
                    raise Failed(
                        f"under torch.autocast it raised {one_line(error)}; products come out as "
                        "bfloat16, which + and * promote and torch.lerp does not"
                    ) from error
            results.append(state)
        for narrow, wide in zip(results[1], results[0], strict=True):
            check_close(narrow, wide, 0.1, "float32 says otherwise")

    def check_repetition(self) -> None:
        cell = self.make()
        with no_global_numbers("forward"):
            self.run(cell)
        self.compare(self.run(cell), "the same input came before: keep nothing between two calls")

    def check_tensors(self) -> None:
        check_tensors(self.make(), self.run, "forward")

    def check_training(self) -> None:
        self.compare(self.run(self.make().eval()), "self.training is false: do the same in both")

    def check_two(self) -> None:
        one, other = (dict(self.bare().named_parameters()) for _ in range(2))
        if shared := [name for name, parameter in one.items() if parameter is other.get(name)]:
            raise Failed(f"they have the same {', '.join(shared)}; make it in __init__")

    def check_inputs(self) -> None:
        given = [each.clone() for each in self.given]
        self.run(self.make(), *given)
        if not all(map(torch.equal, given, self.given)):
            raise Failed("the context or token it was given was changed; work on a copy")

    def check_initialise(self) -> None:
        check_initialise(self.bare, lambda cell, generator: cell.initialise(STD, generator))

    def check_gradient(self) -> None:
        given = [each.clone().requires_grad_() for each in self.given]
        cell = moved(self.make())
        context_NC, token_NE = self.run(cell, *given)
        # Weighted: the sum of what a LayerNorm returns has no gradient at all.
        of_context = (context_NC * values(ROWS, CONTEXT_DIM, seed=3)).sum()
        found: Sequence[Tensor | None] = (None, None)
        if of_context.requires_grad:
            found = torch.autograd.grad(of_context, given, allow_unused=True, retain_graph=True)
        for name, value in zip(NAMES, found, strict=True):
            if value is None or value.norm() <= NOTHING:
                raise Failed(f"the new context does not depend on the {name}, or is detached")
            if not value.isfinite().all():
                raise Failed(f"that of the {name} is not finite; look for sqrt or division at 0")
        of_token = (token_NE * values(ROWS, EMBED_DIM, seed=4)).sum()
        check_parameter_gradients(cell, of_context + of_token)

    def check_second_gradient(self) -> None:
        if not self.type.twice_differentiable:
            return
        cell = self.make()
        advice = "declare twice_differentiable = False, and differences are taken"
        weight_NC, direction_NC = values(2, ROWS, CONTEXT_DIM, seed=5)

        def update(context_NC: Tensor) -> Tensor:
            return self.run(cell, context_NC, self.given[1])[0]

        context_NC = self.given[0].clone().requires_grad_()
        (pulled_NC,) = torch.autograd.grad((update(context_NC) * weight_NC).sum(), context_NC)
        try:
            # What Lyapunov exponents are made of: the derivative along a direction.
            pushed_NC = jvp(update, self.given[0], direction_NC)[1]
        except RuntimeError as error:
            raise Failed(f"differentiating again raised {one_line(error)}; {advice}") from error
        check_close((pushed_NC * weight_NC).sum(), (pulled_NC * direction_NC).sum(), 1e-6, advice)

    def check_is_last(self) -> None:
        cell = self.make()
        cell.is_last = True
        context_NC, _ = self.run(cell)
        token_NE = self.run(self.make())[1]
        self.compare((context_NC, token_NE), "is_last = True may only spare the token")

    def check_state(self) -> None:
        second = self.make(1)
        second.load_state_dict(self.make().state_dict())
        advice = "after load_state_dict(state_dict()); keep tensors in parameters or buffers"
        self.compare(self.run(second), advice)

    def check_copy(self) -> None:
        cell = self.make()
        self.run(cell)
        try:
            copied = copy.deepcopy(cell)
        except Exception as error:
            raise Failed(
                f"copy.deepcopy raised {one_line(error)} after a call; keep no result in the cell"
            ) from error
        self.compare(self.run(copied), "a copy must do what the original does")
