"""Repeat test: read a passage n times and n + 1 times, carrying the state; how far apart are they?

This is the context vector fixed-point property (CVFP) itself: where it holds, the contexts of two
readings are almost equal, and their difference goes to zero with n.

Shapes: P passages, L tokens of each, C context_dim, K kept of a context.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.rows import nobody
from newllm_core.analysis.summary import mean_and_error

# Late enough that the start state is forgotten where it will ever be.
CVFP_READING = 3


@torch.no_grad()
def drift(
    recurrence: Recurrence,
    tokens_PL: Tensor,
    *,
    readings: int,
    on_read: Callable[[int], None] = nobody,
) -> Tensor:
    """Return relative distance [P, readings - 1] of reading n + 1 from reading n, float64.

    The first reading begins with the start state. A distance is the root mean square over the
    tokens of a passage, over that of the later reading's contexts.
    """
    before_PLK, context_PC = recurrence.rollout(tokens_PL, recurrence.start(len(tokens_PL)))
    on_read(tokens_PL.numel())
    drifts = []
    for _ in range(readings - 1):
        after_PLK, context_PC = recurrence.rollout(tokens_PL, context_PC)
        moved_P = (after_PLK.double() - before_PLK.double()).square().sum(dim=(1, 2))
        size_P = after_PLK.double().square().sum(dim=(1, 2)).clamp(min=1e-300)
        drifts.append(torch.where(moved_P > 0, (moved_P / size_P).sqrt(), 0.0))
        before_PLK = after_PLK
        on_read(tokens_PL.numel())
    return torch.stack(drifts, dim=1)


def repeat_drift(drift_PR: Tensor) -> dict[str, Any]:
    """Summarise the drift [P, readings - 1] of every passage, of at least four readings.

    Returns:
        `by_repeat`: the mean drift after 1, 2, … readings; `stderr_by_repeat`; and
        `third_to_fourth`: how far the fourth reading is from the third, by which CVFP is judged.
    """
    figures = [mean_and_error(of_repeat[:, None]) for of_repeat in drift_PR.unbind(1)]
    return {
        "third_to_fourth": figures[CVFP_READING - 1]["mean"],
        "by_repeat": [figure["mean"] for figure in figures],
        "stderr_by_repeat": [figure["stderr"] for figure in figures],
    }
