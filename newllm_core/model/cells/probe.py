"""A few calls of every cell before hours of training: does it keep the least of its contract?

It must be a formula: the same rows give the same, whoever asks, when and beside whom. What breaks
this would end in figures that nobody can repeat.

Shapes: N rows, C context_dim, E embed_dim.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.model.cells.base import Cell
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.repeatable import (
    NOTHING_KEPT,
    leaving_alone,
    require_finite,
    require_same_twice,
    tensors_of,
)

ROWS = 3
STD = 0.1
# What an optimizer trains and files hold.
TRAINED = (torch.float32, torch.float64)
KEPT = (*TRAINED, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
# Relative to the largest value: fewer rows may round otherwise.
ROUNDING = 1e-3


def probe(name: str, cells: Sequence[Cell], seed: int) -> None:
    """Let a few rows pass the cells, which are called `name`, and their gradient go back.

    They were made from `seed`. newllm's own are taken to be right. Random numbers of the run are
    left as they are.

    Raises:
        PluginError: one fails, has nothing to train, or returns no context [N, C] and token [N, E],
            of finite numbers, or what it returns depends on more than these.
    """
    plugin = CELLS.find(name)
    if plugin.is_own:
        return
    what = CELLS.describe(plugin)
    parameters = [parameter for cell in cells for parameter in cell.parameters()]
    if not parameters:
        raise PluginError(
            f"{what} has no parameters: there is nothing to train (in a reservoir they may be "
            "parameters that need no gradient)"
        )
    context = torch.linspace(-1, 1, ROWS * cells[0].context_dim).view(ROWS, -1)
    token = torch.linspace(-1, 1, ROWS * cells[0].embed_dim).view(ROWS, -1)
    given = {"context": context, "token": token}
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), CELLS.blame(name):
        for cell in cells:
            _require_kinds(cell, what)
            require_finite(cell, what)
            with leaving_alone(cell, f"{what}: forward"):
                found = cell(context=context, token=token)
            if not (isinstance(found, tuple | list) and len(found) == 2):
                raise PluginError(
                    f"{what}: forward returned {_described(found)}, expected (context, token)"
                )
            _require_like("context", found[0], context, what)
            if not cell.is_last:  # nobody reads the last token
                _require_like("token", found[1], token, what)
            _require_formula(cell, context, token, found[0], what)
            context, token = found
        require_same_twice(lambda: _like(cells[0], seed), lambda cell: cell(**given)[0], seed, what)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if context.requires_grad and trained:
            torch.autograd.grad(context.sum(), trained, allow_unused=True)


def _like(cell: Cell, seed: int) -> Cell:
    made = type(cell)(cell.context_dim, cell.embed_dim, cell.options)
    made.initialise(STD, torch.Generator().manual_seed(seed))
    return made


def _require_like(name: str, found: object, given: Tensor, what: str) -> None:
    if isinstance(found, Tensor) and (found.shape, found.dtype) == (given.shape, given.dtype):
        odd = found[~found.isfinite()]
        if len(odd):
            raise PluginError(f"{what}: forward returns {odd[0]:g} for ordinary contexts")
        return
    raise PluginError(
        f"{what}: forward returned a {name} that is {_described(found)}, expected "
        f"{_described(given)}"
    )


def _described(found: object) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} of shape {list(found.shape)}"
    return f"a {type(found).__name__}"


def _require_kinds(cell: Cell, what: str) -> None:
    """Raise `PluginError` for numbers that cannot be trained or saved."""
    parameters = dict(cell.named_parameters())
    for name, (tensor, _) in tensors_of(cell).items():
        if tensor.dtype not in (TRAINED if name in parameters else KEPT):
            raise PluginError(
                f"{what}: {name} is {str(tensor.dtype).removeprefix('torch.')}: parameters are "
                "float32 (of a complex number two; convert in forward), whole numbers buffers"
            )


def _require_formula(
    cell: Cell, context: Tensor, token: Tensor, updated_NC: Tensor, what: str
) -> None:
    """Raise `PluginError` if the context [N, C] that `cell` made depends on more than was given."""

    def again(rows: int, problem: str, tolerance: float = 0.0) -> None:
        found = cell(context=context[:rows], token=token[:rows])[0]
        exact = updated_NC[:rows]
        if not ((found - exact).abs() <= tolerance * exact.abs().max()).all():
            raise PluginError(f"{what}: {problem}")

    rows = len(context)
    again(rows, f"a second call returns something else: {NOTHING_KEPT}")
    again(1, "a row alone becomes something else than beside others: mix no rows", ROUNDING)
    cell.eval()
    again(rows, "forward depends on self.training: do the same in both")
    cell.train()
    try:
        copy.deepcopy(cell)
    except Exception as error:
        raise PluginError(f"{what}: after a call it cannot be copied: {NOTHING_KEPT}") from error
