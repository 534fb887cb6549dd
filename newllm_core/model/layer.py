"""One update of the context.

Shapes: N rows (tokens, streams or both), C context_dim, E embed_dim, H hidden_dim.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.model.fused import FusedUpdate
from newllm_core.model.narrow import as_read

# A gate of σ(1) = 0.73 keeps most of the context from the start: memory must be there to be shaped.
INITIAL_GATE_BIAS = 1.0


@torch.no_grad()
def draw_matrices(layer: nn.Module, std: float, generator: torch.Generator) -> None:
    """Draw every matrix of `layer` from N(0, std²); vectors become 0."""
    for parameter in layer.parameters():
        if parameter.ndim == 2:
            parameter.normal_(0, std, generator=generator)
        else:
            parameter.zero_()


class CVFPLayer(nn.Module):
    """Update context and token embedding together, each with a residual and a LayerNorm.

        u  = ReLU(W [c ; x] + b)
        c' = norm_c(c + u[:C])      x' = norm_x(x + u[C:])

    with `norm(z) = (1 - mix) z + mix LayerNorm(z)`. With `hidden_dim` other than C + E,
    `u = W_out ReLU(W [c ; x] + b) + b_out`. With `update="gated"` the context becomes
    `c' = g c + (1 - g) tanh(h)`, where `g = σ(W_g [c ; x] + b_g)` and `h` is the part of the
    update before its ReLU that belongs to the context.

    `W [c ; x]` is computed as `W_c c + W_x x`: the two halves are stored apart, so that nothing is
    concatenated and no gradient is computed towards an input that needs none.

    Args:
        context_dim: C.
        embed_dim: E.
        hidden_dim: H; None means C + E.
        layernorm_mix: share of LayerNorm, 0 to 1.
        update: "residual" or "gated".
    """

    def __init__(
        self,
        context_dim: int,
        embed_dim: int,
        hidden_dim: int | None = None,
        *,
        layernorm_mix: float = 1.0,
        update: str = "residual",
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.embed_dim = embed_dim
        self.layernorm_mix = layernorm_mix
        width = context_dim + embed_dim
        hidden = width if hidden_dim is None else hidden_dim
        self.context_weight = nn.Parameter(torch.empty(hidden, context_dim))
        self.token_weight = nn.Parameter(torch.empty(hidden, embed_dim))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.output = None if hidden == width else nn.Linear(hidden, width)
        self.gated = update == "gated"
        if self.gated:
            self.gate_context_weight = nn.Parameter(torch.empty(context_dim, context_dim))
            self.gate_token_weight = nn.Parameter(torch.empty(context_dim, embed_dim))
            self.gate_bias = nn.Parameter(torch.empty(context_dim))
        else:
            self.norm_context = nn.LayerNorm(context_dim)
        self.norm_token = nn.LayerNorm(embed_dim)
        # The gradient written by hand cannot be differentiated again, autograd's can.
        self.twice_differentiable = False
        self._fixed: tuple[torch.dtype, list[Tensor]] | None = None

    @property
    def reads_narrow(self) -> bool:
        """Whether it takes contexts in bfloat16 and makes its products in it."""
        return self.is_fused

    @property
    def is_fused(self) -> bool:
        """Whether the update is the one that `fused` has by hand."""
        default = not self.gated and self.output is None and self.layernorm_mix == 1.0
        return default and not self.twice_differentiable

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draw every matrix from N(0, std²), biases 0, norms 1: an untrained layer."""
        draw_matrices(self, std, generator)
        self.norm_token.weight.fill_(1.0)
        if self.gated:
            self.gate_bias.fill_(INITIAL_GATE_BIAS)
        else:
            self.norm_context.weight.fill_(1.0)

    def forward(
        self, *, context: Tensor, token: Tensor, last: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Update `context` [..., C] by `token` [..., E]; returns the new pair.

        Args:
            context: c.
            token: x.
            last: nobody reads x', so it is not computed (None is returned in its place).
        """
        if self.is_fused:
            return self._fused(context, token, last=last)
        h_context, h_token = self._mix(context, token)
        new_token = None
        if not last:
            u_token = h_token if self.output is not None else F.relu(h_token)
            new_token = self._norm(token + u_token, self.norm_token)
        if self.gated:
            gate = F.linear(context, self.gate_context_weight, self.gate_bias)
            gate = torch.sigmoid(gate + F.linear(token, self.gate_token_weight))
            candidate = torch.tanh(h_context)
            return candidate + gate * (context - candidate), new_token
        u_context = h_context if self.output is not None else F.relu(h_context)
        return self._norm(context + u_context, self.norm_context), new_token

    def _fused(self, context: Tensor, token: Tensor, *, last: bool) -> tuple[Tensor, Tensor | None]:
        new_context, new_token = FusedUpdate.apply(
            context.reshape(-1, self.context_dim),
            token.reshape(-1, self.embed_dim),
            self.context_weight,
            self.token_weight,
            self.bias,
            self.norm_context.weight,
            self.norm_context.bias,
            None if last else self.norm_token.weight,
            None if last else self.norm_token.bias,
            *self._weights_in(context.dtype),
        )
        return new_context.view_as(context), None if last else new_token.view_as(token)

    def fix_weights(self, dtype: torch.dtype | None) -> None:
        """Keep the two halves of W in `dtype` until told otherwise (None): they will not change.

        Without it they are converted in every call. A cache that watches the weights would be
        wrong: fused optimizers change them without a trace.
        """
        self._fixed = None if dtype is None else (dtype, self._weights_in(dtype))

    def _weights_in(self, dtype: torch.dtype) -> list[Tensor]:
        if self._fixed is not None and self._fixed[0] == dtype:
            return self._fixed[1]
        return [as_read(self.context_weight, dtype), as_read(self.token_weight, dtype)]

    def _mix(self, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """`W [c ; x] + b`, through the hidden units if there are any: parts for c and x."""
        mixed = F.linear(context, self.context_weight, self.bias)
        mixed = mixed + F.linear(token, self.token_weight)
        if self.output is not None:
            mixed = self.output(F.relu(mixed))
        h_context, h_token = mixed.split([self.context_dim, self.embed_dim], dim=-1)
        return h_context, h_token

    def _norm(self, z: Tensor, norm: nn.LayerNorm) -> Tensor:
        if self.layernorm_mix == 1.0:
            return norm(z)
        return (1 - self.layernorm_mix) * z + self.layernorm_mix * norm(z)
