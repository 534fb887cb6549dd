"""The decoder of reconstruction learning: what a context says about where it came from."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.model.one_row import linear


class ReconstructionDecoder(nn.Module):
    """What of c_t is to equal `[c_{t-1} ; x_t]`.

    "mlp": `Linear(C -> C+E) -> ReLU -> Linear(C+E -> C+E)`, after which a token head predicts
    better. "linear": `Linear(C -> C+E)`, for models without the room, or the tokens, for a layer
    that is thrown away.

    Args:
        context_dim: C.
        embed_dim: E.
        kind: "mlp" or "linear".
    """

    def __init__(self, context_dim: int, embed_dim: int, kind: str) -> None:
        super().__init__()
        width = context_dim + embed_dim
        self.hidden = nn.Linear(context_dim, width) if kind == "mlp" else None
        self.output = nn.Linear(width if kind == "mlp" else context_dim, width)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights from N(0, 1/fan_in), biases 0."""
        for layer in (self.hidden, self.output):
            if layer is not None:
                layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()

    def forward(self, contexts: Tensor) -> Tensor:
        """Reconstruct from `contexts` [..., C]: [..., C+E]."""
        if self.hidden is not None:
            contexts = F.relu(linear(contexts, self.hidden))
        return linear(contexts, self.output)

    def loss(
        self, contexts: Tensor, *, previous: Tensor, tokens: Tensor, context_weight: float = 1.0
    ) -> Tensor:
        """Mean squared error of the reconstruction; no gradient reaches the targets.

        Args:
            contexts: c_t [..., C].
            previous: c_{t-1} [..., C].
            tokens: x_t [..., E], as it enters the first block.
            context_weight: of an entry of c_{t-1}; that of an entry of x_t is 1. Less than 1
                makes contexts that answer to the token more and remember less.
        """
        of_context, of_token = (
            self(contexts).float().split([previous.shape[-1], tokens.shape[-1]], dim=-1)
        )
        error = context_weight * F.mse_loss(of_context, previous.detach().float(), reduction="sum")
        error = error + F.mse_loss(of_token, tokens.detach().float(), reduction="sum")
        return error / (context_weight * of_context.numel() + of_token.numel())
