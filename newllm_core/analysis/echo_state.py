"""Echo state: what is left after k tokens of the difference between two start states.

If that is nothing in the end, whatever the start states were (the echo state property: Jaeger
2001), a context is a function of what was read.

Sweeps: how often all tokens must be updated at once until their contexts are right. After k Jacobi
sweeps a context is what reading the last k tokens from the start state gives, so the error is the
distance of two starts after k tokens. A sweep shrinks it by e^λ: `ln ε / λ` sweeps lead to a
relative error of ε (Gonzalez et al., NeurIPS 2025).

Shapes: P passages, T tokens, S = T + 1 contexts in a row, C context_dim, K kept of a context.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.summary import gaussian_like

# Keys of the figures of sweeps, and the relative error that each stands for.
TOLERANCES = {"1%": 1e-2, "0.01%": 1e-4}
# What float32 leaves of an error that is over; the logarithm of zero would be no number.
SMALLEST_ERROR = 1e-12
# Tokens of each passage that are swept, evenly spaced.
SWEPT_TOKENS = 8


@torch.no_grad()
def distances(
    recurrence: Recurrence, tokens_PT: Tensor, trajectory_PSK: Tensor, start_PC: Tensor
) -> Tensor:
    """Return distance [P, S] of a known trajectory from the one that begins at `start_PC`, float64.

    Both read `tokens_PT`; the known one includes its start.
    """
    after_PTK, _ = recurrence.rollout(tokens_PT, start_PC)
    found_PSK = torch.cat([recurrence.kept(start_PC)[:, None], after_PTK], dim=1)
    pairs = zip(trajectory_PSK, found_PSK, strict=True)  # one at a time: in float64 all are large
    return torch.stack([(known.double() - found.double()).norm(dim=1) for known, found in pairs])


def random_start(like_PC: Tensor, seed: int) -> Tensor:
    """Return states [P, C] in random directions, as long as those of `like_PC` are on average."""
    drawn = gaussian_like(like_PC, seed)
    return drawn * (like_PC.norm(dim=1).mean() / drawn.norm(dim=1, keepdim=True))


def echo_state(distances_PS: Tensor) -> dict[str, Any]:
    """Return shares of the first distance, `distances_by_step` and `stderr_by_step` over passages.

    `index` is the last share, 0 for an echo state.
    """
    first_P1 = distances_PS[:, :1]
    # Two equal starts stay equal.
    shares_PS = torch.where(first_P1 > 0, distances_PS / first_P1, 0.0)
    passages = len(shares_PS)
    errors_S = shares_PS.std(dim=0, correction=min(1, passages - 1)) / passages**0.5
    shares = shares_PS.mean(dim=0).tolist()
    return {"distances_by_step": shares, "stderr_by_step": errors_S.tolist(), "index": shares[-1]}


def typical_errors(distances_PS: Tensor, trajectory_PSK: Tensor) -> list[float]:
    """Return relative error of the typical token after 0, 1, … sweeps: the one that λ speaks about.

    Distances are those of the exact trajectory from the one that begins at the start state.
    """
    size_PS = trajectory_PSK.double().norm(dim=2)
    share_PS = distances_PS / size_PS.clamp(min=1e-300)
    return share_PS.clamp(min=SMALLEST_ERROR).log().mean(dim=0).exp().tolist()


def text_errors(distances_PS: Tensor, trajectory_PSK: Tensor) -> list[float]:
    """Return relative error of a text after 0, 1, … sweeps, which the slowest tokens decide."""
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
) -> float | None:
    """Return share of tokens that have converged after `count` sweeps from the start state.

    Their mean squared error is below `converged_below`. `count` is rounded up; None or more than T
    gives None.
    """
    length = tokens_PT.shape[1]
    last = 0 if count is None or count > length else math.ceil(count)
    # Whoever waits expects a sweep for every token: of the others they hear at once.
    recurrence.task.advance(SWEPT_TOKENS * len(tokens_PT) * (length - last))
    if not last:
        return None
    ends_E = torch.linspace(last, length, SWEPT_TOKENS).round().long().to(tokens_PT.device)
    places_En = ends_E[:, None] + torch.arange(-last, 0, device=tokens_PT.device)
    rows_RT = tokens_PT[:, places_En].flatten(0, 1)
    swept_R1K, _ = recurrence.rollout(rows_RT, recurrence.start(len(rows_RT)), warmup=last - 1)
    exact_RK = trajectory_PSK[:, ends_E].flatten(0, 1)
    squares_RK = (swept_R1K[:, 0] - exact_RK).double().square()
    error_R = squares_RK.sum(dim=1) / recurrence.context_dim
    return float((error_R < converged_below).double().mean())


def sweeps(typical: Sequence[float], whole: Sequence[float], exponent: float) -> dict[str, Any]:
    """Return sweeps to a relative error of 1 % and 0.01 %, from λ and the errors by sweep.

    `predicted` is None where λ is not negative; `measured` (of the typical token) and
    `measured_text` where there were too few sweeps.
    """
    return {
        "predicted": {
            name: math.log(limit) / exponent if exponent < 0 else None
            for name, limit in TOLERANCES.items()
        },
        "measured": {name: _measured(typical, limit) for name, limit in TOLERANCES.items()},
        "measured_text": {name: _measured(whole, limit) for name, limit in TOLERANCES.items()},
        "error_by_sweep": list(typical),
        "text_error_by_sweep": list(whole),
    }


def _measured(errors: Sequence[float], tolerance: float) -> int | None:
    """Return the first sweep from which on the error stays within `tolerance`."""
    outside = [sweep for sweep, error in enumerate(errors) if not error <= tolerance]
    first = outside[-1] + 1 if outside else 0
    return first if first < len(errors) else None
