"""The published Phase 1 loop, kept to be read and to be measured against.

Batch one, one optimizer step per token, plain Adam: every token moves all weights and both moments
through memory. `engines` computes the same losses.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.errors import ConfigError
from newllm_core.model.language_model import LanguageModel
from newllm_core.model.layer import CVFPLayer
from newllm_core.regularizers.base import Regularizer


class NaiveLayer(nn.Module):
    """`u = ReLU(W [c ; x] + b)`, residuals and LayerNorms, on vectors joined by a copy."""

    def __init__(self, layer: CVFPLayer) -> None:
        super().__init__()
        self.context_dim = layer.context_dim
        width = layer.context_dim + layer.embed_dim
        dtype = layer.bias.dtype
        self.linear = nn.Linear(width, width, dtype=dtype)
        self.norm_context = nn.LayerNorm(layer.context_dim, dtype=dtype)
        self.norm_token = nn.LayerNorm(layer.embed_dim, dtype=dtype)
        with torch.no_grad():
            self.linear.weight.copy_(torch.cat([layer.context_weight, layer.token_weight], dim=1))
            self.linear.bias.copy_(layer.bias)

    def forward(self, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [1, C] by `token` [1, E]."""
        u = F.relu(self.linear(torch.cat([context, token], dim=1)))
        split = self.context_dim
        return self.norm_context(context + u[:, :split]), self.norm_token(token + u[:, split:])


def naive_phase1(
    model: LanguageModel,
    regularizer: Regularizer,
    tokens_T: Tensor,
    previous_TC: Tensor,
    *,
    weight: float,
    learning_rate: float,
    gradient_clip: float,
) -> Iterator[float]:
    """Read `tokens_T` once from the zero state; yields the loss of each token after its step.

    Args:
        model: where the initial weights and the embeddings come from; it is not changed.
        regularizer: gets one context at a time.
        tokens_T: token ids [T].
        previous_TC: contexts of the reading before, the targets.
        weight: w of the regularizer.
        learning_rate: of plain Adam.
        gradient_clip: largest gradient norm.
    """
    published = [layer for layer in model.layers() if isinstance(layer, CVFPLayer)]
    if len(published) < len(model.layers()):
        raise ConfigError(
            "the published loop has no such update: bench with model.update = residual"
        )
    layers = nn.ModuleList(map(NaiveLayer, published))
    optimizer = torch.optim.Adam(layers.parameters(), lr=learning_rate, foreach=False)
    context = model.start(1)
    for position in range(len(tokens_T)):
        token_id = tokens_T[position : position + 1]
        token = model.embed(token_id).detach()
        new = context
        for layer in layers:
            new, token = layer(new, token)
        cvfp = F.mse_loss(new, previous_TC[position : position + 1])
        loss = (1 - weight) * cvfp + weight * regularizer(new, tokens_N=token_id)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(layers.parameters(), gradient_clip)
        optimizer.step()
        context = new.detach()
        yield loss.item()
