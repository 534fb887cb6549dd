"""The recurrence as its formulas read: one token, one row, no batching. For tests and reading."""

import torch
from torch import Tensor

from newllm_core.model.block import Layer
from newllm_core.model.language_model import LanguageModel
from newllm_core.model.mogrifier import MogrifierLayer


def naive_trajectory(model: LanguageModel, tokens_T: Tensor, start_C: Tensor) -> Tensor:
    """Final contexts [T, C] of one stream."""
    context = start_C
    contexts = []
    for token in tokens_T.tolist():
        context = naive_step(model, token, context)
        contexts.append(context)
    return torch.stack(contexts)


def naive_step(model: LanguageModel, token: int, context_C: Tensor) -> Tensor:
    """The context after reading `token`, from the one before it."""
    x = _layer_norm(model.embedding.weight[token])
    for layer in model.layers():
        context_C, x = _update(layer, context_C, x)
    return context_C


def _update(layer: Layer, c: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(layer, MogrifierLayer):
        return _mogrify(layer, c, x), x
    weight = torch.cat([layer.context_weight, layer.token_weight], dim=1)
    h = weight @ torch.cat([c, x]) + layer.bias
    u = torch.relu(h)
    if layer.output is not None:
        h = u = layer.output.weight @ u + layer.output.bias
    split = layer.context_dim
    new_x = _norm(x + u[split:], layer.norm_token, layer.layernorm_mix)
    if layer.gated:
        gate_weight = torch.cat([layer.gate_context_weight, layer.gate_token_weight], dim=1)
        g = torch.sigmoid(gate_weight @ torch.cat([c, x]) + layer.gate_bias)
        return g * c + (1 - g) * torch.tanh(h[:split]), new_x
    return _norm(c + u[:split], layer.norm_context, layer.layernorm_mix), new_x


def _mogrify(layer: MogrifierLayer, c: Tensor, x: Tensor) -> Tensor:
    read = c
    for number, gate in enumerate(layer.gating):
        assert isinstance(gate, torch.nn.Linear)
        by = torch.sigmoid(gate(x if number % 2 else read))
        read, x = (2 * by * read, x) if number % 2 else (read, 2 * by * x)
    g_c, r_c, h_c = (layer.context_weight @ read).chunk(3)
    g_x, r_x, h_x = (layer.token_weight @ x + layer.bias).chunk(3)
    g, r = torch.sigmoid(g_c + g_x), torch.sigmoid(r_c + r_x)
    return g * c + (1 - g) * torch.tanh(h_x + r * h_c)


def _norm(z: Tensor, norm: torch.nn.LayerNorm, mix: float) -> Tensor:
    return (1 - mix) * z + mix * (norm.weight * _layer_norm(z) + norm.bias)


def _layer_norm(z: Tensor, epsilon: float = 1e-5) -> Tensor:
    return (z - z.mean()) / torch.sqrt(z.var(unbiased=False) + epsilon)
