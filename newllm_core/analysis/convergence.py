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
