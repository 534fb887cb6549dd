"""The cell of reconstruction learning: a gate instead of a residual sum."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config.option import option, share
from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.initialisation import draw, init_option
from newllm_core.model.cells.network import MixedNorm, NetworkOptions, UpdateNetwork


@dataclass(frozen=True)
class GatedOptions(NetworkOptions):
    """Options of `GatedCell`."""

    layernorm_mix: float = share(1.0, "Share of LayerNorm after the token.")
    gate_bias: float = option(
        1.0, "Initial bias of the gate: σ(1) = .73 keeps most of a context, memory to be shaped."
    )
    init: str = init_option()


class GatedCell(Cell):
    """Keeps a learned share of the context, and replaces the rest.

        g  = σ(W_g [c ; x] + b_g)      h = W [c ; x] + b
        c' = g c + (1 - g) tanh(h[:C])      x' = norm_x(x + ReLU(h[C:]))

    With `depth` of 2 or more h comes out of a network with hidden units, as in `ResidualCell`, and
    its token's part is added without another ReLU.

    Source: reconstruction learning in github.com/rato-tokyo/new-llm, 2025.
    """

    Options = GatedOptions
    options: GatedOptions

    def __init__(
        self, context_dim: int, embed_dim: int, options: GatedOptions | None = None
    ) -> None:
        super().__init__(context_dim, embed_dim, options)
        chosen = self.options
        self.network = UpdateNetwork(context_dim, embed_dim, chosen.hidden_dim, chosen.depth)
        self.gate = nn.Linear(context_dim + embed_dim, context_dim)
        self.norm_token = MixedNorm(embed_dim, chosen.layernorm_mix)

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draw the matrices as `init` says; biases 0 but for the gate's, norm 1."""
        scheme, widths = self.options.init, (self.context_dim, self.embed_dim)

        def draw_gate() -> None:
            self.gate.weight.copy_(draw(self.context_dim, widths, scheme, std, generator))

        self.network.initialise(scheme, std, generator, draw_gate)
        self.gate.bias.fill_(self.options.gate_bias)
        self.norm_token.reset_parameters()

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [..., C] by `token` [..., E]; returns the new pair."""
        values = self.network.joined(context, token)
        h_context, h_token = self.network(values, last=self.is_last)
        gate = torch.sigmoid(self.gate(values))
        candidate = torch.tanh(h_context)
        new_context = candidate + gate * (context - candidate)
        if h_token is None:
            return new_context, token
        u_token = h_token if self.network.has_hidden_units else F.relu(h_token)
        return new_context, self.norm_token(token + u_token)
