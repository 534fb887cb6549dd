"""The one-cycle learning rate of Phase 2."""

import math


def one_cycle(step: int, *, total: int, peak: float, warmup_fraction: float) -> float:
    """The rate of `step` (0-based) out of `total`: a linear rise to `peak`, a cosine to zero.

    No step has rate zero: the first makes one part of the rise, and after the last step the
    cosine would reach zero.
    """
    warmup = min(round(warmup_fraction * total), total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
