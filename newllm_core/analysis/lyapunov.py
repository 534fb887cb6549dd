"""Lyapunov exponents: how fast small perturbations of the context grow or die, inputs held fixed.

A tangent vector is carried along the trajectory, `v <- J_t v`; the logarithm of its growth per
token, averaged, is the largest exponent. Several vectors that are made orthogonal after every token
give the largest ones (Benettin et al. 1980, by QR).

Shapes: P passages, T tokens, C context_dim, X exponents.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.summary import gaussian_like, mean_and_error
from newllm_core.config import AnalysisConfig

# A vector that vanishes altogether has shrunk by this much: its logarithm must stay a number.
SMALLEST_GROWTH = 1e-30
# Of every passage the first eighth is left out, and never more tokens than these.
DISCARDED_SHARE = 8
MOST_DISCARDED = 64
# Standard errors by which two halves of a text differ by more than chance.
SIGNIFICANT = 3
# Vectors of a spectrum that are carried at once: many of few numbers, few of many.
ROWS = 32
FEW_NUMBERS = 2**9
MANY_NUMBERS = 2**21
# Readings that are counted where all tokens are one: each goes on where the one before ended.
WITHOUT_INPUT = 4


@torch.no_grad()
def log_growths(
    recurrence: Recurrence, tokens_PT: Tensor, start_PC: Tensor, drawn_PXC: Tensor
) -> Tensor:
    """Return logarithms of the growth of tangent vectors by every token [P, T, X], float64.

    Contexts begin at `start_PC`, vectors, of any length, at `drawn_PXC`; several of a passage are
    kept orthogonal.
    """
    count = drawn_PXC.shape[1]
    vectors_PXC, _ = _orthonormal(drawn_PXC, drawn_PXC)
    context_PC, grown = start_PC, []
    for token_P in tokens_PT.unbind(1):
        after_RC, pushed_RC = recurrence.push_forward(
            context_PC.repeat_interleave(count, 0),
            token_P.repeat_interleave(count),
            vectors_PXC.flatten(0, 1),
        )
        context_PC = after_RC[::count]
        vectors_PXC, norms_PX = _orthonormal(pushed_RC.view_as(drawn_PXC), vectors_PXC)
        grown.append(norms_PX.double().clamp(min=SMALLEST_GROWTH).log())
    return torch.stack(grown, dim=1)


def _orthonormal(pushed_PXC: Tensor, before_PXC: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal vectors and their lengths [P, X]; a single one that vanished stays."""
    if pushed_PXC.shape[1] == 1:
        norms_PX1 = pushed_PXC.norm(dim=2, keepdim=True)
        return torch.where(norms_PX1 > 0, pushed_PXC / norms_PX1, before_PXC), norms_PX1[..., 0]
    directions_PCX, r_PXX = torch.linalg.qr(pushed_PXC.mT)
    return directions_PCX.mT, r_PXX.diagonal(dim1=1, dim2=2).abs()


def lyapunov_exponent(log_growth_PT: Tensor, *, delay: int = 0) -> dict[str, float]:
    """Return `mean` log growth per token in nats, and its standard error (`stderr`).

    The first tokens of every passage are left out: the vector has to find its direction, and to
    lose what was in a line of `delay` tokens, if there is one. Where the halves of the rest
    disagree it is still turning: half of that is a part of the error.
    """
    tokens = log_growth_PT.shape[1]
    discard = max(min(MOST_DISCARDED, tokens // DISCARDED_SHARE), min(delay, tokens * 3 // 4))
    counted_PT = log_growth_PT[:, discard:]
    found, half = mean_and_error(counted_PT), counted_PT.shape[1] // 2
    if half:
        trend = mean_and_error(counted_PT[:, -half:] - counted_PT[:, :half])
        if abs(trend["mean"]) > SIGNIFICANT * trend["stderr"]:
            found["stderr"] = math.hypot(found["stderr"], trend["mean"] / 2)
    return found


def lyapunov_spectra(
    recurrence: Recurrence,
    read: Mapping[str, ProbeContexts],
    config: AnalysisConfig,
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Measure the largest exponents on evenly spaced passages of splits of equal shapes.

    The first reading of a passage turns the vectors into their directions, the next is counted.

    Returns:
        For each split `exponents` (for each `mean`, in nats per token, and `stderr`),
        `kaplan_yorke_dimension`, `dimensions` (C) and `tokens` (so many were counted).
    """
    shape = next(iter(read.values())).tokens.shape
    passages, steps, count = extent(recurrence.context_dim, shape, config)
    chosen = [of_split.evenly(passages, steps) for of_split in read.values()]
    _, tokens, firsts = zip(*chosen, strict=True)
    # Drawn split by split, so that a split has the same figures whatever is beside it.
    drawn = [gaussian_like(of_split[:, None].expand(-1, count, -1), seed) for of_split in firsts]
    tokens_PT = torch.cat(tokens)
    is_driven = len(torch.unique(tokens_PT)) > 1
    growth_PTX = log_growths(
        recurrence,
        tokens_PT.repeat(1, 2 if is_driven else 1 + WITHOUT_INPUT),
        torch.cat(firsts),
        torch.cat(drawn),
    )[:, tokens_PT.shape[1] :]
    found = {}
    for split, of_split_PTX in zip(read, growth_PTX.split(passages), strict=True):
        exponents = [mean_and_error(of_one) for of_one in of_split_PTX.unbind(2)]
        means = [exponent["mean"] for exponent in exponents]
        found[split] = {
            "exponents": exponents,
            "kaplan_yorke_dimension": kaplan_yorke_dimension(means, recurrence.context_dim),
            "dimensions": recurrence.context_dim,
            "tokens": of_split_PTX[..., 0].numel(),
        }
    return found


def extent(dimensions: int, shape: Sequence[int], config: AnalysisConfig) -> tuple[int, int, int]:
    """Return how many passages, tokens of each and exponents; `shape` is that of the tokens."""
    rows = max(2, min(max(ROWS, FEW_NUMBERS // dimensions), MANY_NUMBERS // dimensions))
    count = min(config.exponents, dimensions, rows)
    # What costs next to nothing is measured on all there is.
    steps = shape[1] if rows > ROWS else min(shape[1], config.dynamics_steps)
    return min(shape[0], max(1, rows // count)), steps, count


def kaplan_yorke_dimension(exponents: Sequence[float], dimensions: int) -> float | None:
    """Return `j + (λ_1 + … + λ_j) / |λ_{j+1}|` for the last j whose sum is not negative.

    Kaplan & Yorke 1979. 0: all starts meet; `dimensions`: no sum is negative; None: it takes more
    than the largest `exponents` given, in descending order, to know.
    """
    total = 0.0
    for number, exponent in enumerate(exponents):
        if not total + exponent >= 0:  # so that what is no number gives none
            return number + total / -exponent
        total += exponent
    return float(dimensions) if len(exponents) == dimensions else None
