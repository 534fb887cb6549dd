"""Cells in sequence, in blocks: one update of the context by a token."""

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from newllm_core.model.cells.base import Cell


class CVFPBlock(nn.Module):
    """Cells one after another, each updating context and token: the unit that a head can read."""

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(cells)

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[list[Tensor], Tensor]:
        """Update `context` [N, C] by `token` [N, E]: the context after each cell, the new token."""
        contexts = []
        for cell in self.layers:
            context, token = cell(context=context, token=token)
            contexts.append(context)
        return contexts, token


class Recurrence(nn.ModuleList):
    """Blocks in sequence."""

    def cells(self) -> Iterator[Cell]:
        """Yield every cell of every block, in the order in which a token passes them."""
        for block in self:
            yield from (cast(Cell, cell) for cell in cast(CVFPBlock, block).layers)

    def forward(self, *, context: Tensor, token: Tensor) -> list[list[Tensor]]:
        """Return the context after each cell of each block, from `context` [N, C] and [N, E]."""
        dtype = context.dtype
        contexts = []
        for block in self:
            of_block, token = block(context=context, token=token)
            # Products may be narrow (see `runtime.precision`); the state that is carried is not.
            of_block = [values.to(dtype) for values in of_block]
            context = of_block[-1]
            contexts.append(of_block)
        return contexts
