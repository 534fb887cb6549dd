"""Lyapunov exponent: how fast a small perturbation of the context grows or dies, inputs held fixed.

A tangent vector is carried along the trajectory, `v <- J_t v` with the Jacobian-vector product of
one update, which is exact; the logarithm of its growth per token, averaged,
is the largest exponent (Benettin et al. 1980). Every passage has its own random vector: on one
trajectory several would turn into the same direction and tell the same story.

Shapes: P passages, T tokens, C context_dim.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.rows import nobody
from newllm_core.analysis.sampling import mean_and_error

# A vector that vanishes altogether has shrunk by this much: its logarithm must stay a number.
SMALLEST_GROWTH = 1e-30
# Below, a passage is too short for the vector to find its direction and a warm-up costs too much.
DISCARDED_SHARE = 8
MOST_DISCARDED = 64
# Standard errors by which two halves of a text differ by more than chance.
SIGNIFICANT = 3


@torch.no_grad()
def log_growth(
    recurrence: Recurrence,
    tokens_PT: Tensor,
    start_PC: Tensor,
    vector_PC: Tensor,
    *,
    on_read: Callable[[int], None] = nobody,
) -> Tensor:
    """Return logarithm of the growth of a tangent vector by every token [P, T], float64.

    Args:
        recurrence: what reads.
        tokens_PT: what is read.
        start_PC: the contexts before it.
        vector_PC: the perturbations, of any length.
        on_read: told how many tokens have been read, a tangent counting as another row.
    """
    vector_PC = F.normalize(vector_PC, dim=1)
    context_PC = start_PC
    grown = []
    for token_P in tokens_PT.unbind(1):
        context_PC, pushed_PC = recurrence.push_forward(context_PC, token_P, vector_PC)
        norm_P1 = pushed_PC.norm(dim=1, keepdim=True)
        vector_PC = torch.where(norm_P1 > 0, pushed_PC / norm_P1, vector_PC)
        grown.append(norm_P1[:, 0].double().clamp(min=SMALLEST_GROWTH).log())
        on_read(2 * len(context_PC))
    return torch.stack(grown, dim=1)


def lyapunov_exponent(log_growth_PT: Tensor) -> dict[str, float]:
    """Return `mean` log growth per token in nats, and its standard error (`stderr`).

    The first tokens of every passage are left out: the vector has to find its direction. The error
    is that of the mean over passages and, where the second half of the rest says otherwise than the
    first, half of what they differ by: there the vector is still turning.
    """
    discard = min(MOST_DISCARDED, log_growth_PT.shape[1] // DISCARDED_SHARE)
    counted_PT = log_growth_PT[:, discard:]
    found, half = mean_and_error(counted_PT), counted_PT.shape[1] // 2
    if half:
        trend = mean_and_error(counted_PT[:, -half:] - counted_PT[:, :half])
        if abs(trend["mean"]) > SIGNIFICANT * trend["stderr"]:
            found["stderr"] = math.hypot(found["stderr"], trend["mean"] / 2)
    return found


def memory_horizon(exponent: float) -> float | None:
    """Return tokens until a perturbation has shrunk to 1/e; None where perturbations grow."""
    return 1 / -exponent if exponent < 0 else None
