"""A GRU whose token and context gate each other first."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from newllm_core.config.option import option
from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.gru import GruUnit
from newllm_core.model.cells.initialisation import init_option


@dataclass(frozen=True)
class MogrifierOptions:
    """Options of `MogrifierCell`."""

    rounds: int = option(1, "Rounds of mutual gating, tokens first.", low=0, high=1000)
    init: str = init_option()


class MogrifierCell(Cell):
    """A GRU behind rounds of mutual gating (Melis et al. 2020, arXiv 1909.01792).

        x <- 2 σ(Q_1 c + q_1) x,   c~ <- 2 σ(Q_2 x + q_2) c~,   x <- 2 σ(Q_3 c~ + q_3) x, ...

    then the formulas of `GruCell`, whose products read c~ and x; what is carried is c itself. The
    token that goes on is the one that came in.
    """

    Options = MogrifierOptions
    options: MogrifierOptions

    def __init__(
        self, context_dim: int, embed_dim: int, options: MogrifierOptions | None = None
    ) -> None:
        super().__init__(context_dim, embed_dim, options)
        self.unit = GruUnit(context_dim, embed_dim)
        widths = context_dim, embed_dim
        self.gating = nn.ModuleList(
            nn.Linear(widths[number % 2], widths[(number + 1) % 2])
            for number in range(self.options.rounds)
        )

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [..., C] by `token` [..., E]; the token goes on as it is."""
        read, x = context, token
        for number, gate in enumerate(self.gating):
            if number % 2 == 0:
                x = 2 * torch.sigmoid(gate(read)) * x
            else:
                read = 2 * torch.sigmoid(gate(x)) * read
        return self.unit(context, read=read, token=x), token
