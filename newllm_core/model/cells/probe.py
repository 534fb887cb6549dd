"""One call of every cell before hours of training: does it keep the least of its contract?

Shapes: N rows, C context_dim, E embed_dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.formula import require_formula, require_kinds
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.repeatable import leaving_alone, require_same_twice

ROWS = 3
STD = 0.1


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
            require_kinds(cell, what)
            with leaving_alone(cell, f"{what}: forward"):
                found = cell(context=context, token=token)
            if not (isinstance(found, tuple | list) and len(found) == 2):
                raise PluginError(
                    f"{what}: forward returned {_described(found)}, expected (context, token)"
                )
            _require_like("context", found[0], context, what)
            if not cell.is_last:  # nobody reads the last token
                _require_like("token", found[1], token, what)
            require_formula(cell, context, token, found[0], what)
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
