"""Lyapunov spectrum: how fast small boxes of perturbations grow in each of their directions.

Several tangent vectors are carried along a trajectory and made orthogonal after every token; the
logarithms of what they had grown by, averaged, are the largest exponents (Benettin et al. 1980,
by QR). The Kaplan-Yorke dimension is that of the boxes that neither grow nor shrink: 0 where all
starts meet.

Shapes: P passages, T tokens, C context_dim, X exponents.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.lyapunov import SMALLEST_GROWTH
from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.rows import nobody
from newllm_core.analysis.sampling import gaussian_like, mean_and_error
from newllm_core.config import AnalysisConfig

# Vectors that are carried at once: many of few numbers, few of many.
ROWS = 32
FEW_NUMBERS = 2**9
MANY_NUMBERS = 2**21
# Readings that are counted where all tokens are one: each goes on where the one before ended.
WITHOUT_INPUT = 4


def lyapunov_spectra(
    recurrence: Recurrence,
    read: Mapping[str, ProbeContexts],
    config: AnalysisConfig,
    *,
    seed: int,
    on_read: Callable[[int], None] = nobody,
) -> dict[str, dict[str, Any]]:
    """Measure the largest exponents on evenly spaced passages, each read twice in a row.

    The first reading turns the vectors into their directions, the second is counted. Without an
    input there are more of them.

    Args:
        recurrence: what reads.
        read: the contexts of every split, of equal shapes.
        config: how many exponents and tokens.
        seed: of the vectors.
        on_read: told how many tokens have been read.

    Returns:
        For each split `exponents`: for each `mean`, in nats per token, and `stderr`;
        `kaplan_yorke_dimension`: None where more exponents are needed to know it; `dimensions`: C;
        `tokens`: so many were counted.
    """
    shape = next(iter(read.values())).tokens.shape
    passages, steps, count = extent(recurrence.context_dim, shape, config)
    chosen = torch.linspace(0, shape[0] - 1, passages).round().long()
    tokens, firsts = [], []
    for of_split in read.values():
        begin = shape[1] - of_split.trajectory.shape[1] + 1
        tokens.append(of_split.tokens[chosen, begin:][:, :steps])
        firsts.append(of_split.ends[0, chosen])
    tokens_PT = torch.cat(tokens)
    length = tokens_PT.shape[1]
    is_driven = len(torch.unique(tokens_PT)) > 1
    # Drawn split by split, so that a split has the same figures whatever is beside it.
    drawn_PXC = torch.cat([_drawn(of_split, count, seed) for of_split in firsts])
    growth_PTX = log_growths(
        recurrence,
        tokens_PT.repeat(1, 2 if is_driven else 1 + WITHOUT_INPUT),
        torch.cat(firsts),
        drawn_PXC,
        on_read=on_read,
    )[:, length:]
    return {
        split: _summary(of_split, recurrence.context_dim)
        for split, of_split in zip(read, growth_PTX.split(passages), strict=True)
    }


def _drawn(like_PC: Tensor, count: int, seed: int) -> Tensor:
    return gaussian_like(like_PC[:, None].expand(-1, count, -1), seed)


def _summary(growth_PTX: Tensor, dimensions: int) -> dict[str, Any]:
    found = [mean_and_error(of_one) for of_one in growth_PTX.unbind(2)]
    means = [exponent["mean"] for exponent in found]
    return {
        "exponents": found,
        "kaplan_yorke_dimension": kaplan_yorke_dimension(means, dimensions),
        "dimensions": dimensions,
        "tokens": growth_PTX[..., 0].numel(),
    }


def extent(dimensions: int, shape: Sequence[int], config: AnalysisConfig) -> tuple[int, int, int]:
    """Return how many passages, tokens of each and exponents; `shape` is that of the tokens."""
    rows = max(2, min(max(ROWS, FEW_NUMBERS // dimensions), MANY_NUMBERS // dimensions))
    count = min(config.exponents, dimensions, rows)
    # What costs next to nothing is measured on all there is.
    steps = shape[1] if rows > ROWS else min(shape[1], config.dynamics_steps)
    return min(shape[0], max(1, rows // count)), steps, count


@torch.no_grad()
def log_growths(
    recurrence: Recurrence,
    tokens_PT: Tensor,
    start_PC: Tensor,
    drawn_PXC: Tensor,
    *,
    on_read: Callable[[int], None] = nobody,
) -> Tensor:
    """Return logarithms of the growth of X vectors that are kept orthogonal [P, T, X], float64.

    Args:
        recurrence: what reads.
        tokens_PT: what is read.
        start_PC: the contexts before it.
        drawn_PXC: where the vectors begin.
        on_read: told how many tokens have been read, a tangent counting as another row.
    """
    passages, count, width = drawn_PXC.shape
    vectors_PCX = torch.linalg.qr(drawn_PXC.mT).Q
    context_PC, grown = start_PC, []
    for token_P in tokens_PT.unbind(1):
        after_RC, pushed_RC = recurrence.push_forward(
            context_PC.repeat_interleave(count, 0),
            token_P.repeat_interleave(count),
            vectors_PCX.mT.reshape(-1, width),
        )
        context_PC = after_RC[::count]
        q_PCX, r_PXX = torch.linalg.qr(pushed_RC.view(passages, count, width).mT)
        norms_PX = r_PXX.diagonal(dim1=1, dim2=2).abs()
        vectors_PCX = q_PCX
        grown.append(norms_PX.double().clamp(min=SMALLEST_GROWTH).log())
        on_read(2 * len(after_RC))
    return torch.stack(grown, dim=1)


def kaplan_yorke_dimension(exponents: Sequence[float], dimensions: int) -> float | None:
    """Return `j + (λ_1 + … + λ_j) / |λ_{j+1}|` for the last j whose sum is not negative.

    Kaplan & Yorke 1979. `dimensions` if no sum is negative; None if that cannot be told from the
    exponents given, the largest ones in descending order.
    """
    total = 0.0
    for number, exponent in enumerate(exponents):
        if total + exponent < 0:
            return number + total / -exponent
        total += exponent
    return float(dimensions) if len(exponents) == dimensions else None
