"""How several token heads count together."""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from newllm_core.errors import ConfigError

Value = TypeVar("Value", float, Tensor)


def head_weights(configured: Sequence[float], num_heads: int) -> list[float]:
    """Return a weight per head, first block first.

    As configured where the counts agree, else interpolated linearly with both ends kept. A single
    head reads the last block and gets the last weight, which cancels in the mean.

    Raises:
        ConfigError: every weight of this many heads is zero.
    """
    last = len(configured) - 1
    weights = []
    for head in range(num_heads):
        place = last * head / (num_heads - 1) if num_heads > 1 else float(last)
        below = min(int(place), max(last - 1, 0))
        share = place - below
        above = min(below + 1, last)
        weights.append((1 - share) * configured[below] + share * configured[above])
    if not sum(weights) > 0:
        raise ConfigError(
            f"phase2.head_weights leaves no weight above zero for {num_heads} head(s)"
        )
    return weights


def weighted_mean(values: Sequence[Value], weights: Sequence[float]) -> Value:
    """Return together: `Σ w_k v_k / Σ w_k`, of numbers or tensors."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total / sum(weights)
