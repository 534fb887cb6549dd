"""A GRU without a hidden-to-hidden product."""

import torch
from torch import Tensor, nn

from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.initialisation import InitOptions


class MinGruCell(Cell):
    """The minimal GRU (Feng et al. 2024, "Were RNNs All We Needed?", arXiv 2410.01201).

        z = σ(W_z x + b_z)      h = W_h x + b_h      c' = (1 - z) c + z h

    Neither z nor h depends on c: the update contracts by 1 - z whatever was read before. The token
    goes on as it is.
    """

    Options = InitOptions

    def __init__(
        self, context_dim: int, embed_dim: int, options: InitOptions | None = None
    ) -> None:
        super().__init__(context_dim, embed_dim, options)
        self.of_token = nn.Linear(embed_dim, 2 * context_dim)

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [..., C] by `token` [..., E]; the token goes on as it is."""
        z, h = self.of_token(token).chunk(2, dim=-1)
        return context + torch.sigmoid(z) * (h - context), token
