"""One call of an objective before hours of training: can its loss be repeated?

Shapes: N rows, C context_dim, E embed_dim, V vocabulary.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.objectives.base import EMBEDDING_MATRIX, NO_TOKEN, TOKENS_AT, Objective
from newllm_core.plugins.guard import log
from newllm_core.runtime.repeatable import (
    NOTHING_KEPT,
    leaving_alone,
    require_finite,
    require_same_twice,
)

ROWS = 8


def probe(make: Callable[[], Objective], seed: int, what: str) -> None:
    """Raise `PluginError` if the loss of what `make` makes depends on calls before or on chance."""

    def call(objective: Objective) -> Tensor:
        require_finite(objective, what)
        given = given_to(objective)
        with leaving_alone(objective, f"{what}: loss"):
            first = objective.loss(**given)
        if not isinstance(first, Tensor):
            raise PluginError(f"{what} returned no scalar tensor")
        if not torch.equal(objective.loss(**given).nan_to_num(), first.nan_to_num()):
            raise PluginError(f"{what}: a second call returns another loss: {NOTHING_KEPT}")
        return first

    with torch.random.fork_rng(devices=[]):
        with torch.no_grad():
            require_same_twice(make, call, seed, what)
        with torch.enable_grad():
            _warn_if_idle(make(), what)


def _warn_if_idle(objective: Objective, what: str) -> None:
    """Warn of a loss that trains the objective's own parameters alone."""
    given = given_to(objective)
    contexts_NC = given["final_NC"].requires_grad_()
    loss = objective.loss(**given)
    gradient_NC = None
    if loss.requires_grad and loss.ndim == 0:
        (gradient_NC,) = torch.autograd.grad(loss, contexts_NC, allow_unused=True)
    if gradient_NC is None or not gradient_NC.any():
        _warn_once(f"{what} has no gradient with respect to the contexts: it trains no recurrence")


@cache
def _warn_once(text: str) -> None:
    log.warning("warning: %s", text)


def given_to(objective: Objective, rows: int = ROWS, known: int = ROWS - 1) -> dict[str, Tensor]:
    """Make what `loss` is given, always the same numbers; of tokens the first `known` exist."""
    generator = torch.Generator().manual_seed(0)
    context_dim, embed_dim = objective.context_dim, objective.embed_dim
    sizes = {"final_NC": context_dim, "incoming_NC": context_dim, "embedded_NE": embed_dim}
    found = {n: torch.randn(rows, size, generator=generator) for n, size in sizes.items()}
    for seed, name in enumerate(sorted(objective.reads)):
        if name.startswith(TOKENS_AT):
            ids_N = torch.arange(seed, seed + rows) % objective.vocab_size
            found[name] = ids_N.where(torch.arange(rows) < known, NO_TOKEN)
        else:
            of_table = name == EMBEDDING_MATRIX
            shape = (objective.vocab_size, embed_dim) if of_table else (rows, context_dim)
            found[name] = torch.randn(shape, generator=generator)
    return found
