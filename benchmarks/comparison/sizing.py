"""Models of equal size: the width that gives a wanted number of parameters."""

from collections.abc import Callable, Sequence

from newllm_core.errors import ConfigError

TOLERANCE = 0.05
# Widths that are multiples of many numbers make faster matrix products, if they come this close.
CLOSE = 0.02


def solve_width(
    count: Callable[[int], int], target: int, *, what: str, steps: Sequence[int]
) -> int:
    """The width whose `count` of parameters is nearest to `target`.

    Args:
        count: parameters at a width; grows with it.
        target: wanted.
        what: the model's name, for the message.
        steps: the width is a multiple of one of these, the first that comes close enough.

    Raises:
        ConfigError: nothing comes within 5 %.
    """
    found = []
    for step in steps:
        low, high = 1, 2
        while count(high * step) < target:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if count(middle * step) < target else (low, middle)
        width = min((low * step, high * step), key=lambda width: abs(count(width) - target))
        found.append(width)
        if abs(count(width) - target) <= CLOSE * target:
            break
    width = min(found, key=lambda width: abs(count(width) - target))
    require_size(count(width), target, what=what)
    return width


def require_size(parameters: int, target: int, *, what: str) -> None:
    """Raise `ConfigError` unless `parameters` are within 5 % of `target`."""
    if abs(parameters - target) > TOLERANCE * target:
        raise ConfigError(
            f"{what} has {parameters:,} parameters, more than {TOLERANCE:.0%} from the "
            f"{target:,} of --params: change --params, the vocabulary, or the model"
        )
