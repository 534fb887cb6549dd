"""A gated update whose token and context gate each other first.

Shapes: C context_dim, E embed_dim.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.model.layer import draw_matrices
from newllm_core.runtime.precision import at_least_float32


class MogrifierLayer(nn.Module):
    """A GRU (Cho et al. 2014) behind rounds of mutual gating (Melis et al. 2020, 1909.01792).

        x <- 2 σ(Q_1 c + q_1) x,   c~ <- 2 σ(Q_2 x + q_2) c~,   x <- 2 σ(Q_3 c~ + q_3) x, ...
        g, r = σ of two thirds of W_c c~ + W_x x + b;   the last third: h = tanh(h_x + r h_c)
        c' = g c + (1 - g) h

    The gated c~ is only read: what is carried is c itself. The token that comes out is the one
    that went in.

    Args:
        context_dim: C.
        embed_dim: E.
        rounds: of mutual gating, tokens first; 0 makes a plain GRU.
    """

    # Contexts may come in bfloat16; products are made in it then.
    reads_narrow = True

    def __init__(self, context_dim: int, embed_dim: int, *, rounds: int) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.embed_dim = embed_dim
        self.context_weight = nn.Parameter(torch.empty(3 * context_dim, context_dim))
        self.token_weight = nn.Parameter(torch.empty(3 * context_dim, embed_dim))
        self.bias = nn.Parameter(torch.empty(3 * context_dim))
        widths = context_dim, embed_dim
        self.gating = nn.ModuleList(
            nn.Linear(widths[number % 2], widths[(number + 1) % 2]) for number in range(rounds)
        )
        self.twice_differentiable = False

    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draw every matrix from N(0, std²), biases 0: an untrained layer."""
        draw_matrices(self, std, generator)

    def fix_weights(self, dtype: torch.dtype | None) -> None:
        """Nothing is kept: every call converts."""

    def forward(
        self, *, context: Tensor, token: Tensor, last: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Update `context` [..., C] by `token` [..., E]; returns the new context, the same token.

        Args:
            context: c.
            token: x.
            last: nobody reads the token (None is returned in its place).
        """
        dtype = context.dtype
        read, x = context, token
        for number, gate in enumerate(self.gating):
            weight, shift = (p.to(dtype) for p in gate.parameters())
            if number % 2 == 0:
                x = 2 * torch.sigmoid(F.linear(read, weight, shift)) * x
            else:
                read = 2 * torch.sigmoid(F.linear(x, weight, shift)) * read
        g_c, r_c, h_c = F.linear(read, self.context_weight.to(dtype)).chunk(3, dim=-1)
        of_token = F.linear(x, self.token_weight.to(dtype), self.bias.to(dtype))
        g_x, r_x, h_x = of_token.chunk(3, dim=-1)
        h = at_least_float32(torch.tanh(h_x + torch.sigmoid(r_c + r_x) * h_c))
        # What leaves the recurrence is compared and accumulated: it is not rounded.
        new_context = h + torch.sigmoid(g_c + g_x) * (context - h)
        return new_context if last else new_context.to(dtype), None if last else token
