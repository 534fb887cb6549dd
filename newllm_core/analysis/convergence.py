"""Convergence: what Phase 1 wrote down while it trained, read with care.

An entry of the history belongs to one iteration: `window`, `iteration`, `converged_ratio` per
split, `terms` and `gradient_norms` by name, `weight_change`, and more. Keys may be missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from newllm_core.files.strict_json import finite


def convergence(
    history: Sequence[Mapping[str, Any]], vacuous_terms: Sequence[str]
) -> dict[str, Any]:
    """Return the whole history and the loss terms that had no gradient, fit for JSON."""
    return {"history": finite(list(history)), "vacuous_terms": list(vacuous_terms)}


def final_converged_ratio(history: Sequence[Mapping[str, Any]], split: str) -> float | None:
    """Share of tokens of `split` that had converged when it was last measured."""
    for entry in reversed(history):
        ratios = entry.get("converged_ratio")
        ratio = ratios.get(split) if isinstance(ratios, Mapping) else ratios
        if isinstance(ratio, int | float):
            return float(ratio)
    return None


def largest_weight_change(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return how far weights ever were from where they began; None where nobody wrote it down."""
    changes: list[float] = []
    for entry in history:
        change = entry.get("weight_change")
        values = change.values() if isinstance(change, Mapping) else [change]
        changes += [float(value) for value in values if isinstance(value, int | float)]
    return max(changes, default=None)
