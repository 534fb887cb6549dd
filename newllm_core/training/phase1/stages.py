"""The stages of Phase 1: the learning rate of an iteration, when to stop, what is told."""

from collections.abc import Mapping
from typing import Any

from newllm_core.config import Phase1Config

# Some megabytes; the log of a run has all.
MOST_ENTRIES = 4096


def learning_rate(config: Phase1Config, iteration: int, *, first_window: bool = True) -> float:
    """Return the rate of `iteration` (1-based): warm-up, medium, fine-tune; or constant.

    Later windows go on where the first one ended: they begin with the medium rate, and where they
    have several iterations with steps the last has the fine one.
    """
    if config.lr_schedule == "constant":
        return config.learning_rate
    if first_window:
        stages = config.warmup_iterations, config.medium_iterations
    else:
        stages = 0, max(2, min(config.max_iterations, config.later_iterations) - 1)
    if iteration <= stages[0]:
        return config.learning_rate
    return config.medium_learning_rate if iteration <= stages[1] else config.fine_learning_rate


def stops(entry: Mapping[str, Any], config: Phase1Config) -> bool:
    """Say whether a window has converged enough after an iteration, whose figures are given."""
    converged = entry["converged_ratio"]["train"]
    return converged >= config.min_converged_ratio and entry["iteration"] >= config.min_iterations


def thinned(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a checkpoint keeps of a history, however long the text was.

    Beyond `MOST_ENTRIES` every other window is left out, but the last one and the first, unless it
    is most of them: then every other entry. The first entry counts those that are `left_out`.
    """
    if len(history) <= MOST_ENTRIES:
        return history
    whole = sum(entry["window"] == 1 for entry in history)
    if whole > MOST_ENTRIES // 2:
        rest = history[1:][::-2][::-1]
    else:
        windows = list(dict.fromkeys(entry["window"] for entry in history[whole:]))
        kept = {1, *windows[::-2]}
        rest = [entry for entry in history[1:] if entry["window"] in kept]
    left_out = history[0].get("left_out", 0) + len(history) - 1 - len(rest)
    return [history[0] | {"left_out": left_out}, *rest]


def early_stop(config: Phase1Config) -> str:
    """Say when a window may stop early."""
    if config.min_iterations >= config.max_iterations:
        return (
            f"no early stop: phase1.min_iterations {config.min_iterations} is not below "
            f"phase1.max_iterations {config.max_iterations}"
        )
    return (
        f"fewer from iteration {config.min_iterations} on, once {config.min_converged_ratio:.0%} "
        "have converged"
    )


def told(entry: Mapping[str, Any]) -> str:
    """Return what an iteration says: figures of the model, then the mean losses of its sweep."""
    parts = []
    for label, name, shape in (
        ("ER/D", "effective_rank_ratio", ".3f"),
        ("converged", "converged_ratio", ".1%"),
        ("pair cosine", "mean_cosine", ".3f"),
    ):
        values = (format(entry[name][split], shape) for split in ("train", "validation"))
        parts.append(f"{label} {' / '.join(values)}")
    losses = " ".join(f"{name} {value:.4f}" for name, value in entry["sweep_terms"].items())
    return f"{', '.join(parts)} (train / validation)" + (
        f"; losses of the sweep: {losses}" if losses else ""
    )
