"""A gated recurrent unit."""

import torch
from torch import Tensor, nn

from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.initialisation import InitOptions


class GruUnit(nn.Module):
    """The formulas of `GruCell`, for contexts c that are carried and others that are read."""

    def __init__(self, context_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.of_context = nn.Linear(context_dim, 3 * context_dim, bias=False)
        self.of_token = nn.Linear(embed_dim, 3 * context_dim)

    def forward(self, context: Tensor, *, read: Tensor, token: Tensor) -> Tensor:
        """Update c = `context` [..., C]; products read `read` in its place."""
        sizes = [2 * self.context_dim, self.context_dim]
        gates_c, h_c = self.of_context(read).split(sizes, dim=-1)
        gates_x, h_x = self.of_token(token).split(sizes, dim=-1)
        g, r = torch.sigmoid(gates_c + gates_x).chunk(2, dim=-1)
        h = torch.tanh(h_x + r * h_c)
        return h + g * (context - h)


class GruCell(Cell):
    """The GRU (Cho et al. 2014, arXiv 1406.1078), its reset gate behind the product.

        g = σ(W_g c + U_g x + b_g)      r = σ(W_r c + U_r x + b_r)
        h = tanh(U_h x + b_h + r (W_h c))      c' = g c + (1 - g) h

    The token goes on as it is.
    """

    Options = InitOptions

    def __init__(
        self, context_dim: int, embed_dim: int, options: InitOptions | None = None
    ) -> None:
        super().__init__(context_dim, embed_dim, options)
        self.unit = GruUnit(context_dim, embed_dim)

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [..., C] by `token` [..., E]; the token goes on as it is."""
        return self.unit(context, read=context, token=token), token
