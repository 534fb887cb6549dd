"""Whether a cell is a formula: the same rows give the same, whoever asks, when and beside whom.

What breaks this would end in figures that nobody can repeat.

Shapes: N rows, C context_dim, E embed_dim.
"""

import copy

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.model.cells.base import Cell
from newllm_core.runtime.seeded import seeded, tensors_of

# What an optimizer trains and files hold.
TRAINED = (torch.float32, torch.float64)
KEPT = (*TRAINED, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
NOTHING_KEPT = "keep nothing between two calls"
# Relative to the largest value: fewer rows may round otherwise.
ROUNDING = 1e-3


def require_kinds(cell: Cell, what: str) -> None:
    """Raise `PluginError` for numbers that cannot be trained or saved."""
    parameters = dict(cell.named_parameters())
    for name, (tensor, _) in tensors_of(cell).items():
        if tensor.dtype not in (TRAINED if name in parameters else KEPT):
            raise PluginError(
                f"{what}: {name} is {str(tensor.dtype).removeprefix('torch.')}: parameters are "
                "float32 (of a complex number two; convert in forward), whole numbers buffers"
            )


def require_formula(
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


def require_same_twice(cell: Cell, seed: int, what: str) -> None:
    """Raise `PluginError` if two cells like `cell` from one seed differ, or share tensors."""
    made = []
    for _ in range(2):
        with seeded(seed):
            made.append(type(cell)(cell.context_dim, cell.embed_dim, cell.options))
            made[-1].initialise(0.1, torch.Generator().manual_seed(seed))
    one, other = (tensors_of(each) for each in made)
    names = [name for name in one if not torch.equal(one[name][0], other[name][0])]
    before = {name: tensor.clone() for name, (tensor, _) in one.items()}
    # What is no parameter and no buffer shows in what is made of a context.
    ones = torch.ones(1, cell.context_dim), torch.ones(1, cell.embed_dim)
    pair = [each(context=ones[0], token=ones[1])[0] for each in made]
    if names or not torch.equal(*pair):
        raise PluginError(
            f"{what}: one seed makes two that differ{' in ' if names else ''}{', '.join(names)}: "
            "draw with torch in __init__, from its generator in initialise"
        )
    # `leaving_alone` does not see what is written to `tensor.data`.
    if changed := [name for name in one if not torch.equal(one[name][0], before[name])]:
        raise PluginError(f"{what}: forward changes {', '.join(changed)}: {NOTHING_KEPT}")
    if shared := [name for name in one if one[name][0] is other[name][0]]:
        raise PluginError(f"{what}: all have the same {', '.join(shared)}: make it in __init__")
