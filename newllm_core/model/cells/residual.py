"""The default cell: the original project's CVFP layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config.option import option, share
from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.initialisation import init_option
from newllm_core.model.cells.network import MixedNorm, NetworkOptions, UpdateNetwork


@dataclass(frozen=True)
class ResidualOptions(NetworkOptions):
    """Options of `ResidualCell`."""

    layernorm_mix: float = share(
        1.0, "Share of LayerNorm after an update; at 0 long texts explode."
    )
    residual: str = option(
        "fixed", "Coefficient of the old values in the sum.", choices=("fixed", "learned")
    )
    residual_coefficient: float = option(1.0, "Its value, or where learning it starts.")
    init: str = init_option()


class ResidualCell(Cell):
    """Adds an update to context and token, and normalises both.

        u  = ReLU(W [c ; x] + b)
        c' = norm_c(α_c c + u[:C])      x' = norm_x(α_x x + u[C:])

    with `norm(z) = (1 - mix) z + mix LayerNorm(z)` and α = `residual_coefficient`. With `depth` d
    of 2 or more, `u = W_d ReLU(… ReLU(W_1 [c ; x] + b_1) …) + b_d`.

    Source: github.com/rato-tokyo/new-llm, 2025.
    """

    Options = ResidualOptions
    options: ResidualOptions

    def __init__(
        self, context_dim: int, embed_dim: int, options: ResidualOptions | None = None
    ) -> None:
        super().__init__(context_dim, embed_dim, options)
        chosen = self.options
        self.network = UpdateNetwork(context_dim, embed_dim, chosen.hidden_dim, chosen.depth)
        self.norm_context = MixedNorm(context_dim, chosen.layernorm_mix)
        self.norm_token = MixedNorm(embed_dim, chosen.layernorm_mix)
        learned = chosen.residual == "learned"
        self.coefficients = nn.Parameter(torch.empty(2)) if learned else None

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draw the matrices as `init` says; biases 0, norms 1, coefficients as configured."""
        self.network.initialise(self.options.init, std, generator)
        self.norm_context.reset_parameters()
        self.norm_token.reset_parameters()
        if self.coefficients is not None:
            self.coefficients.fill_(self.options.residual_coefficient)

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [..., C] by `token` [..., E]; returns the new pair."""
        values = self.network.joined(context, token)
        u_context, u_token = self.network(values, last=self.is_last)
        if not self.network.has_hidden_units:
            u_context = F.relu(u_context)
            u_token = None if u_token is None else F.relu(u_token)
        new_context = self.norm_context(self._scaled(context, 0) + u_context)
        if u_token is None:
            return new_context, token
        return new_context, self.norm_token(self._scaled(token, 1) + u_token)

    def _scaled(self, values: Tensor, which: int) -> Tensor:
        if self.coefficients is not None:
            return self.coefficients[which] * values
        coefficient = self.options.residual_coefficient
        return values if coefficient == 1 else coefficient * values
