"""The search for every model's best setting: along one axis after another, downhill."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Setting = dict[str, Any]
Axes = Mapping[str, Sequence[Any]]

RATE = "learning_rate"
# What every neural model is tuned over, beside its windows and its shape.
RATES = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04)
DROPOUTS = (0.0, 0.1, 0.2, 0.3, 0.5)
DECAYS = (0.01, 0.1, 0.3, 1.0)
# Where the search begins.
FIRST_RATE = 0.01
FIRST_DROPOUT = 0.2


def descend(score: Callable[[Setting], float], axes: Axes, start: Setting) -> Setting:
    """Find a setting with a low `score`, changing one value at a time.

    Every name of an axis is tried; of numbers the next lower and the next higher one, and the walk
    goes on in the direction that improves. The first axis is walked again at the end: a learning
    rate may not fit what was chosen after it. One minimum along each axis is assumed, and none
    across axes.

    Args:
        score: lower is better; called again for known settings.
        axes: the values of each, in order.
        start: one value of each axis.
    """
    best = start
    for axis in (*axes, next(iter(axes))):
        values = axes[axis]
        if isinstance(values[0], str):
            best = min((best | {axis: value} for value in values), key=score)
            continue
        place = values.index(best[axis])
        for way in (values[place::-1], values[place:]):
            for value in way[1:]:
                tried = best | {axis: value}
                if not score(tried) < score(best):
                    break
                best = tried
            if best[axis] != values[place]:
                break
    return best


def at_edge(setting: Setting) -> bool:
    """Say whether a better learning rate or decay may lie outside of what is tried."""
    return setting.get(RATE) in (RATES[0], RATES[-1]) or setting.get("weight_decay") == DECAYS[-1]


def shown(setting: Setting) -> str:
    """Write a setting out; decay and dropouts only where they are not the first tried."""
    kept = {
        name: value
        for name, value in setting.items()
        if not (name.endswith("dropout") and value == DROPOUTS[0])
        and not (name == "weight_decay" and value == DECAYS[0])
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in kept.items())
