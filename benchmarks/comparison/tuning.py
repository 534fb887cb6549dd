"""The grid, the same for every neural model, and how it is searched."""

from collections.abc import Callable

from benchmarks.comparison.budget import Setting

LEARNING_RATES = {
    "small": (0.002, 0.005, 0.01, 0.02),
    "full": (0.001, 0.002, 0.005, 0.01, 0.02, 0.04),
}
DROPOUTS = {"small": (0.0, 0.1, 0.3), "full": (0.0, 0.1, 0.2, 0.3, 0.5)}
FIRST_DROPOUT = 0.1
ORDERS = (3, 4, 5, 7)


def tune(score: Callable[[Setting], float], *, name: str, grid: str) -> Setting:
    """The setting with the lowest `score`: learning rates first, then dropouts at the best one."""
    if name == "ngram":
        return min((Setting.make(order=order) for order in ORDERS), key=score)
    by_rate = [
        Setting.make(learning_rate=rate, dropout=FIRST_DROPOUT) for rate in LEARNING_RATES[grid]
    ]
    rate = min(by_rate, key=score).as_dict()["learning_rate"]
    by_dropout = [Setting.make(learning_rate=rate, dropout=share) for share in DROPOUTS[grid]]
    return min(by_dropout, key=score)


def at_edge(setting: Setting, grid: str) -> bool:
    """Whether a better learning rate may lie outside of the grid."""
    rate = setting.as_dict().get("learning_rate")
    return rate in (LEARNING_RATES[grid][0], LEARNING_RATES[grid][-1])
