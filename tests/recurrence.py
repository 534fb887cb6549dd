"""Small models with nothing at a neutral value, and the recurrence written from its formulas."""

import torch

from newllm_core.config import GenerationConfig, ModelConfig
from newllm_core.generation.session import Session
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase1.engines import incoming

D, E, V, T = 13, 11, 29, 63

# Every cell with its options, and blocks of one and of several layers.
SHAPES = {
    "one-matrix": {},
    "hidden-units": {"options": {"hidden_dim": 31}},
    "three-maps": {"options": {"depth": 3, "hidden_dim": 9}},
    "scaled-residual": {"options": {"residual": "learned", "residual_coefficient": 0.7}},
    "gated": {"cell": "gated", "layer_structure": (1,)},
    "gated-hidden-units": {"cell": "gated", "options": {"hidden_dim": 17}},
    "blocks-of-2-and-3": {"layer_structure": (2, 3)},
    "half-normed": {"options": {"layernorm_mix": 0.6}},
    "mogrifier": {"cell": "mogrifier", "layer_structure": (1,), "options": {"rounds": 3}},
    "mogrifier-blocks": {"cell": "mogrifier", "options": {"rounds": 2}},
    "gru": {"cell": "gru"},
    "mingru": {"cell": "mingru"},
}


def make_model(*, seed=0, num_heads=1, std=0.3, options=None, **shape):
    """A float64 model whose biases and norms are random too; `options` are those of the cell."""
    config = ModelConfig(**({"context_dim": D, "embed_dim": E} | shape))
    model = LanguageModel(config, V, cell=options, num_heads=num_heads, seed=seed).double()
    shake(model, std, seed)
    return model


@torch.no_grad()
def shake(module, std=0.3, seed=0):
    """Add noise to every parameter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.add_(noise, alpha=std)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def draw_tokens(*shape, seed=0):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sweep(model, tokens_T, previous_TC, start_C):
    """Every token at once, from the contexts of the sweep before: their successors [T, C]."""
    context = incoming(previous_TC, start_C, torch.arange(len(tokens_T), device=tokens_T.device))
    return model.step(context=context, token=model.embed(tokens_T))[-1]


def cell_formula(name, cell, c, x):
    """One row through one cell: the new context and token."""
    if name == "residual":
        return residual_formula(cell, c, x)
    if name == "gated":
        return gated_formula(cell, c, x)
    return {"gru": gru_formula, "mogrifier": mogrifier_formula, "mingru": mingru_formula}[name](
        cell, c, x
    ), x


def network_formula(network, c, x):
    """`W_d ReLU(… ReLU(W_1 [c ; x] + b_1) …) + b_d`, whether d is more than 1, and C."""
    values = torch.cat([c, x])
    for layer in network.hidden:
        values = (layer.weight @ values + layer.bias).clamp(min=0)
    last = torch.cat([network.to_context.weight, network.to_token.weight])
    bias = torch.cat([network.to_context.bias, network.to_token.bias])
    return last @ values + bias, len(network.hidden) > 0, len(c)


def residual_formula(cell, c, x):
    update, is_deep, size = network_formula(cell.network, c, x)
    if not is_deep:
        update = update.clamp(min=0)
    options = cell.options
    of_c = of_x = options.residual_coefficient
    if options.residual == "learned":
        of_c, of_x = cell.coefficients
    mix = options.layernorm_mix
    new_c = mixed_norm(of_c * c + update[:size], cell.norm_context, mix)
    return new_c, mixed_norm(of_x * x + update[size:], cell.norm_token, mix)


def gated_formula(cell, c, x):
    h, is_deep, size = network_formula(cell.network, c, x)
    gate = sigmoid(cell.gate.weight @ torch.cat([c, x]) + cell.gate.bias)
    update = h[size:] if is_deep else h[size:].clamp(min=0)
    new_x = mixed_norm(x + update, cell.norm_token, cell.options.layernorm_mix)
    return gate * c + (1 - gate) * torch.tanh(h[:size]), new_x


def gru_formula(cell, c, x, read=None):
    size, unit, read = len(c), cell.unit, c if read is None else read
    of_context = unit.of_context.weight @ read
    of_token = unit.of_token.weight @ x + unit.of_token.bias
    keep = sigmoid(of_context[:size] + of_token[:size])
    reset = sigmoid(of_context[size : 2 * size] + of_token[size : 2 * size])
    candidate = torch.tanh(of_token[2 * size :] + reset * of_context[2 * size :])
    return keep * c + (1 - keep) * candidate


def mogrifier_formula(cell, c, x):
    read = c
    for number, gate in enumerate(cell.gating, start=1):
        if number % 2 == 1:
            x = x * 2 * sigmoid(gate.weight @ read + gate.bias)
        else:
            read = read * 2 * sigmoid(gate.weight @ x + gate.bias)
    return gru_formula(cell, c, x, read)


def mingru_formula(cell, c, x):
    both = cell.of_token.weight @ x + cell.of_token.bias
    change = sigmoid(both[: len(c)])
    return (1 - change) * c + change * both[len(c) :]


def sigmoid(z):
    return 1 / (1 + torch.exp(-z))


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
        for cell in block.layers:
            c, x = cell_formula(model.config.cell, cell, c, x)
            contexts.append(c)
    return contexts


def text_formula(model, tokens, c):
    """The final context [T, C] after each of some tokens, from the one before them."""
    contexts = []
    for token in tokens:
        c = token_formula(model, int(token), c)[-1]
        contexts.append(c)
    return torch.stack(contexts)


def session_at(model, context, last=None):
    """A text that goes on from `context`, in which `last` was read last."""
    session = Session(model, GenerationConfig())
    session.go_on_from(context, None, last)
    return session


def single_logits(model, context, last=None):
    """What a text that goes on from `context` is continued with."""
    return torch.from_numpy(session_at(model, context, last)._logits())
