"""Small models with nothing at a neutral value, and the recurrence written from its formulas."""

import torch

from newllm_core.config import ModelConfig
from newllm_core.model.language_model import LanguageModel
from newllm_core.model.mogrifier import MogrifierLayer

D, E, V, T = 13, 11, 29, 63

# Every way to update, and blocks of one and of several layers.
SHAPES = {
    "one-matrix": {},
    "two-matrices": {"hidden_dim": 31},
    "gated": {"update": "gated", "layer_structure": (1,)},
    "gated-two-matrices": {"update": "gated", "hidden_dim": 17},
    "blocks-of-2-and-3": {"layer_structure": (2, 3)},
    "half-normed": {"layernorm_mix": 0.6},
    "mogrifier": {"update": "mogrifier", "layer_structure": (1,), "mogrifier_rounds": 3},
    "mogrifier-blocks": {"update": "mogrifier", "mogrifier_rounds": 2},
}


def make_model(*, seed=0, num_heads=1, reconstruction=False, std=0.3, **shape):
    """A float64 model whose biases and norms are random too."""
    config = ModelConfig(**({"context_dim": D, "embed_dim": E} | shape))
    model = LanguageModel(
        config, V, num_heads=num_heads, reconstruction=reconstruction, seed=seed
    ).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=std)
    return model


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def draw_tokens(*shape, seed=0):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


def layer_formula(layer, c, x):
    """One row through one layer, with `W` as the one matrix of the formula."""
    if isinstance(layer, MogrifierLayer):
        return mogrifier_formula(layer, c, x), x
    joined = torch.cat([c, x])
    hidden = torch.cat([layer.context_weight, layer.token_weight], dim=1) @ joined + layer.bias
    update = hidden.clamp(min=0)
    if layer.output is not None:
        hidden = update = layer.output.weight @ update + layer.output.bias
    size = len(c)
    new_x = mixed_norm(x + update[size:], layer.norm_token, layer.layernorm_mix)
    if not layer.gated:
        return mixed_norm(c + update[:size], layer.norm_context, layer.layernorm_mix), new_x
    gate_weight = torch.cat([layer.gate_context_weight, layer.gate_token_weight], dim=1)
    gate = 1 / (1 + torch.exp(-(gate_weight @ joined + layer.gate_bias)))
    return gate * c + (1 - gate) * torch.tanh(hidden[:size]), new_x


def mogrifier_formula(layer, c, x):
    def sigmoid(z):
        return 1 / (1 + torch.exp(-z))

    size, read = len(c), c
    for number, gate in enumerate(layer.gating, start=1):
        if number % 2 == 1:
            x = x * 2 * sigmoid(gate.weight @ read + gate.bias)
        else:
            read = read * 2 * sigmoid(gate.weight @ x + gate.bias)
    of_context, of_token = layer.context_weight @ read, layer.token_weight @ x + layer.bias
    keep = sigmoid(of_context[:size] + of_token[:size])
    reset = sigmoid(of_context[size : 2 * size] + of_token[size : 2 * size])
    candidate = torch.tanh(of_token[2 * size :] + reset * of_context[2 * size :])
    return keep * c + (1 - keep) * candidate


def mixed_norm(z, norm, mix):
    return (1 - mix) * z + mix * (standardised(z) * norm.weight + norm.bias)


def standardised(z):
    centred = z - z.sum() / len(z)
    return centred / ((centred * centred).sum() / len(z) + 1e-5).sqrt()


def token_formula(model, token, c):
    """The context after every layer, from the one before `token`."""
    x = standardised(model.embedding.weight[token])
    contexts = []
    for block in model.blocks:
        for layer in block.layers:
            c, x = layer_formula(layer, c, x)
            contexts.append(c)
    return contexts
