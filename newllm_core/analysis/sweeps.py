"""Sweeps: how often all tokens must be updated at once until their contexts are right.

A Jacobi sweep gives every token the context that the sweep before made of its predecessor. After k
sweeps a context is what reading the last k tokens from the initial guess (the start state) gives,
so the error after k sweeps is the distance of two starts after k tokens, and whole texts need not
be swept to know it. The initial guess is wrong by all of the context and a sweep shrinks the error
by e^λ: `ln ε / λ` sweeps lead to a relative error of ε (Gonzalez et al., NeurIPS 2025).

Shapes: P passages, S = T + 1 contexts in a row, K numbers kept of each.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.rows import nobody

# Keys of the figures, and the relative error that each stands for.
TOLERANCES = {"1%": 1e-2, "0.01%": 1e-4}
# What float32 leaves of an error that is over; the logarithm of zero would be no number.
SMALLEST_ERROR = 1e-12
# Tokens of each passage that are swept, evenly spaced.
SWEPT_TOKENS = 8


def typical_errors(distances_PS: Tensor, trajectory_PSK: Tensor) -> list[float]:
    """Relative error of the typical token after 0, 1, … sweeps: the geometric mean of passages.

    λ is a mean of logarithms, so this is the error that it speaks about.

    Args:
        distances_PS: of the trajectory from the one that begins at the start state.
        trajectory_PSK: the exact contexts.
    """
    size_PS = trajectory_PSK.double().norm(dim=2)
    share_PS = distances_PS / size_PS.clamp(min=1e-300)
    return share_PS.clamp(min=SMALLEST_ERROR).log().mean(dim=0).exp().tolist()


def text_errors(distances_PS: Tensor, trajectory_PSK: Tensor) -> list[float]:
    """Return relative error of a long text after 0, 1, … sweeps: the ratio of root mean squares.

    The tokens that settle last decide it, so it shrinks more slowly than the typical error.
    """
    wrong_S = distances_PS.square().mean(dim=0)
    size_S = trajectory_PSK.double().square().sum(dim=2).mean(dim=0)
    return (wrong_S / size_S.clamp(min=1e-300)).sqrt().tolist()


@torch.no_grad()
def converged_share(
    recurrence: Recurrence,
    tokens_PT: Tensor,
    trajectory_PSK: Tensor,
    *,
    count: float | None,
    converged_below: float,
    on_read: Callable[[int], None] = nobody,
) -> float | None:
    """Share of tokens that have converged after `count` sweeps from the start state.

    Converged is what Phase 1 calls so.

    Args:
        recurrence: what reads.
        tokens_PT: what is read.
        trajectory_PSK: the exact contexts, that before the first token included.
        count: of sweeps, rounded up; None or more than T gives None.
        converged_below: the mean squared error below which a context has converged.
        on_read: told how many tokens have been read.
    """
    passages, length = tokens_PT.shape
    on_read(passages * SWEPT_TOKENS * length)
    if count is None or math.ceil(count) > length:
        return None
    last = math.ceil(count)
    ends_E = torch.linspace(last, length, SWEPT_TOKENS).round().long().to(tokens_PT.device)
    places_En = ends_E[:, None] + torch.arange(-last, 0, device=tokens_PT.device)
    rows_RT = tokens_PT[:, places_En].flatten(0, 1)
    swept_R1K, _ = recurrence.rollout(rows_RT, recurrence.start(len(rows_RT)), warmup=last - 1)
    exact_RK = trajectory_PSK[:, ends_E].flatten(0, 1)
    squares_RK = (swept_R1K[:, 0] - exact_RK).double().square()
    error_R = squares_RK.sum(dim=1) / recurrence.context_dim
    return float((error_R < converged_below).double().mean())


def sweeps(typical: Sequence[float], whole: Sequence[float], exponent: float) -> dict[str, Any]:
    """Return sweeps to a relative error of 1 % and 0.01 %.

    Args:
        typical: relative error of the typical token after 0, 1, … sweeps.
        whole: relative error of the whole text.
        exponent: λ.

    Returns:
        `predicted` from λ, None where it is not negative; `measured` of the typical token and
        `measured_text` of the whole text, None where that many sweeps were not enough;
        `error_by_sweep` and `text_error_by_sweep`.
    """
    return {
        "predicted": {name: _predicted(exponent, limit) for name, limit in TOLERANCES.items()},
        "measured": {name: _measured(typical, limit) for name, limit in TOLERANCES.items()},
        "measured_text": {name: _measured(whole, limit) for name, limit in TOLERANCES.items()},
        "error_by_sweep": list(typical),
        "text_error_by_sweep": list(whole),
    }


def _predicted(exponent: float, tolerance: float) -> float | None:
    return math.log(tolerance) / exponent if exponent < 0 else None


def _measured(errors: Sequence[float], tolerance: float) -> int | None:
    """Return the first sweep from which on the error stays within `tolerance`."""
    outside = [sweep for sweep, error in enumerate(errors) if not error <= tolerance]
    first = outside[-1] + 1 if outside else 0
    return first if first < len(errors) else None
