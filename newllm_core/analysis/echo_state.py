"""Echo state: what is left after k tokens of the difference between two start states.

A recurrence has the echo state property (Jaeger 2001) if nothing is left in the end, whatever the
start states were: then its context is a function of what it read.

Shapes: P passages, T tokens, S = T + 1 contexts in a row, C context_dim, K kept of a context.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.rows import nobody
from newllm_core.analysis.sampling import gaussian_like


@torch.no_grad()
def distances(
    recurrence: Recurrence,
    tokens_PT: Tensor,
    trajectory_PSK: Tensor,
    start_PC: Tensor,
    *,
    on_read: Callable[[int], None] = nobody,
) -> Tensor:
    """Return distance [P, S] of a known trajectory from the one that begins at `start_PC`, float64.

    Args:
        recurrence: what reads.
        tokens_PT: what both read.
        trajectory_PSK: what is kept of the contexts of the first, its start included.
        start_PC: where the second starts.
        on_read: told how many tokens have been read.
    """
    context_PC = start_PC
    apart = [_distance(trajectory_PSK[:, 0], recurrence.kept(context_PC))]
    for step, token_P in enumerate(tokens_PT.unbind(1), 1):
        context_PC = recurrence.read(context_PC, token_P)
        apart.append(_distance(trajectory_PSK[:, step], recurrence.kept(context_PC)))
        on_read(len(context_PC))
    return torch.stack(apart, dim=1)


def random_start(like_PC: Tensor, seed: int) -> Tensor:
    """Return states [P, C] in random directions, as long as those of `like_PC` are on average."""
    drawn = gaussian_like(like_PC, seed)
    return drawn * (like_PC.norm(dim=1).mean() / drawn.norm(dim=1, keepdim=True))


def echo_state(distances_PS: Tensor) -> dict[str, Any]:
    """Return what is left of the distance after every token.

    Returns:
        `distances_by_step`: S shares of the initial distance, mean over passages, 1 first;
        `stderr_by_step`: their standard errors; `index`: the last share, 0 for an echo state.
    """
    first_P1 = distances_PS[:, :1]
    # Two equal starts stay equal.
    shares_PS = torch.where(first_P1 > 0, distances_PS / first_P1, 0.0)
    passages = len(shares_PS)
    errors_S = shares_PS.std(dim=0, correction=min(1, passages - 1)) / passages**0.5
    shares = shares_PS.mean(dim=0).tolist()
    return {
        "distances_by_step": shares,
        "stderr_by_step": errors_S.tolist(),
        "index": shares[-1],
    }


def _distance(a_PC: Tensor, b_PC: Tensor) -> Tensor:
    return (a_PC.double() - b_PC.double()).norm(dim=1)
