"""Whether a cell is a formula: the same rows give the same, whoever asks, when and beside whom.

What breaks this would end in figures that nobody can repeat.

Shapes: N rows, C context_dim, E embed_dim.
"""

import copy

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.model.cells.base import Cell
from newllm_core.runtime.repeatable import NOTHING_KEPT, tensors_of

# What an optimizer trains and files hold.
TRAINED = (torch.float32, torch.float64)
KEPT = (*TRAINED, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
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
