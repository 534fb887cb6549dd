"""The loss of Phase 1 one token at a time, and what its tests share."""

import torch
from recurrence import D, draw, draw_tokens, shake, token_formula

from newllm_core import settings
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.windows import Window
from newllm_core.training.phase2.extra_terms import make_objective


def make_config(section=None, **phase1):
    """A config with small streams; `section` holds keys of the other sections."""
    small = {"num_streams": 4, "chunk_steps": 5, "reg": "distribution", "dist_reg_weight": 0.3}
    small["objective"] = "cvfp"
    shape = {"model": {"context_dim": 13, "embed_dim": 11}}
    return settings.resolve(shape, {"phase1": small | phase1}, section or {})


def make_regularizers(model, config):
    count = len(model.cells()) if config.phase1.apply_to == "every-layer" else 1
    reg, options = config.phase1.reg, config.regularizer
    return REGULARIZERS.make(reg, options, model.context_dim, count=count)[0]


def make_loss(model, config):
    """The loss of a model in float64; the objective's parameters are at no neutral value."""
    objective, _ = make_objective(config.phase1.objective, config, model)
    objective = objective.double()
    shake(objective)
    loss = Phase1Loss(model, objective, make_regularizers(model, config), config.phase1)
    return loss.to(model.embedding.weight.device)


def make_window(length, *, start="carry", readings=0, first=True, device="cpu"):
    """A window whose contexts of the reading before are arbitrary, once there was one."""
    first_D = draw(D, seed=1) if first else torch.zeros(D)
    window = Window(draw_tokens(length).to(device), first_D.to(device), start)
    window.readings = readings
    if readings:
        window.previous_TC = draw(length, D, seed=2).to(device)
    return window


def walk(loss, window, config, *, seed=0):
    """Every batch of one reading with its loss, at fixed weights."""
    generator = torch.Generator().manual_seed(seed)
    for batch in batches(loss.model, window, config.phase1, generator):
        terms = loss.of_batch(window, batch)
        window.store(batch.positions_N, terms.contexts_NC)
        yield batch, terms


def naive_incoming(model, window, config):
    """c_{t-1} of every position by the definition of the engine, one token at a time."""
    phase1 = config.phase1
    begin = window.previous_TC[-1] if window.start == "carry" and window.readings else None
    begin = window.first_C if begin is None else begin
    length = len(window)
    if phase1.engine == "parallel":
        return torch.stack([begin, *window.previous_TC[: length - 1]])
    streams = 1 if phase1.engine == "online" else min(phase1.num_streams, length)
    sizes = [length // streams + (number < length % streams) for number in range(streams)]
    rows, position = [], 0
    for size in sizes:
        context = begin if position == 0 else window.previous_TC[position - 1]
        for _ in range(size):
            rows.append(context)
            token = int(window.tokens_T[position])
            context = token_formula(model, token, context)[-1].detach()
            position += 1
    return torch.stack(rows)


def naive_loss(loss, config, incoming, tokens, targets):
    """`(1 - w) objective + w regularizer` of some tokens, from per-token contexts."""
    model, objective = loss.model, loss.objective
    by_token = [
        token_formula(model, token, context.detach())
        for token, context in zip(tokens.tolist(), incoming, strict=True)
    ]
    losses = []
    for contexts, target, before, token in zip(by_token, targets, incoming, tokens, strict=True):
        if config.phase1.objective == "cvfp":
            losses.append(((contexts[-1] - target) ** 2).sum() / D)
            continue
        x = model.embed(token).detach()
        hidden = torch.relu(objective.hidden.weight @ contexts[-1] + objective.hidden.bias)
        error = objective.output.weight @ hidden + objective.output.bias - torch.cat([before, x])
        weight = torch.ones_like(error)
        weight[: len(before)] = objective.options.context_weight
        losses.append((weight * error**2).sum() / weight.sum())
    first = 0 if config.phase1.apply_to == "every-layer" else len(by_token[0]) - 1
    moments = []
    for layer in range(first, len(by_token[0])):
        rows = torch.stack([contexts[layer] for contexts in by_token])
        mean = rows.sum(0) / len(rows)
        variance = ((rows - mean) ** 2).sum(0) / len(rows)
        moments.append(((mean**2) + (variance - 1) ** 2).sum() / D)
    weight = config.phase1.dist_reg_weight
    return (1 - weight) * sum(losses) / len(losses) + weight * sum(moments) / len(moments)
