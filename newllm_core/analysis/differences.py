"""What training and new text change: the headline figures, subtracted. Standard library only."""

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Any]

# Name in the report; as tables call it; where the figure is. If it is sampled, its standard error
# stands beside it.
HEADLINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "effective_rank_ratio": ("ER/D", ("effective_rank_ratio",)),
    "pairwise_cosine": ("pair cosine", ("pairwise_cosine", "mean")),
    "identity_cosine": ("step cosine", ("identity_cosine", "mean")),
    "token_cosine": ("token cosine", ("token_dependency", "mean_cosine")),
    "lyapunov_exponent": ("exponent λ", ("lyapunov_exponent", "mean")),
    "tokens_remembered": ("tokens remembered", ("token_memory", "total")),
}


def differences(
    splits: Mapping[str, Figures], control: Mapping[str, Figures]
) -> dict[str, dict[str, Any]]:
    """Subtract the headline figures of splits and of their random control, where there are any.

    Returns:
        `validation_minus_train`, `train_minus_control` and `validation_minus_control`: for each
        figure `difference` and `stderr`, that of its two sampled parts together (None if neither
        is sampled). A comparison that cannot be made is empty.
    """
    train, validation = splits.get("train"), splits.get("validation")
    return {
        "validation_minus_train": _subtract(validation, train),
        "train_minus_control": _subtract(train, control.get("train")),
        "validation_minus_control": _subtract(validation, control.get("validation")),
    }


def _subtract(left: Figures | None, right: Figures | None) -> dict[str, Any]:
    if left is None or right is None:
        return {}
    found = {}
    for name, (_, path) in HEADLINES.items():
        values = [look_up(figures, path) for figures in (left, right)]
        errors = [look_up(figures, (*path[:-1], "stderr")) for figures in (left, right)]
        if None not in values:
            stderr = None if None in errors else sum(error**2 for error in errors) ** 0.5
            found[name] = {"difference": values[0] - values[1], "stderr": stderr}
    return found


def look_up(figures: Figures | None, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any figure
    """Return the figure at `path`, or None where there is none."""
    value: Any = figures
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
