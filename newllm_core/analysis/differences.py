"""What training and new text change: the headline figures, subtracted. Standard library only."""

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Any]

# Name in the report, and where the figure and (if it is sampled) its standard error are.
HEADLINES: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "effective_rank_ratio": (("effective_rank_ratio",), None),
    "pairwise_cosine": (("pairwise_cosine", "mean"), ("pairwise_cosine", "stderr")),
    "identity_cosine": (("identity_cosine", "mean"), None),
    "token_cosine": (
        ("token_dependency", "mean_cosine"),
        ("token_dependency", "stderr"),
    ),
    "lyapunov_exponent": (("lyapunov_exponent", "mean"), ("lyapunov_exponent", "stderr")),
    "tokens_remembered": (("token_memory", "total"), ("token_memory", "stderr")),
}


def differences(
    splits: Mapping[str, Figures], control: Mapping[str, Figures]
) -> dict[str, dict[str, Any]]:
    """Subtract the headline figures.

    Args:
        splits: figures of "train" and, if there is one, "validation".
        control: those of the random control, of the splits where it has any.

    Returns:
        `validation_minus_train`, `train_minus_control` and `validation_minus_control`: for each
        figure `difference` and `stderr`, that of its two sampled parts together (None if neither
        is sampled). A comparison that cannot be made is empty.
    """
    train, validation = splits.get("train"), splits.get("validation")
    return {
        "validation_minus_train": subtract(validation, train),
        "train_minus_control": subtract(train, control.get("train")),
        "validation_minus_control": subtract(validation, control.get("validation")),
    }


def subtract(left: Figures | None, right: Figures | None) -> dict[str, Any]:
    """Return every headline figure of `left` minus that of `right`."""
    if left is None or right is None:
        return {}
    found = {}
    for name, (value, error) in HEADLINES.items():
        pair = [look_up(figures, value) for figures in (left, right)]
        if pair[0] is None or pair[1] is None:
            continue
        stderr = None
        if error is not None:
            squares = [(look_up(figures, error) or 0.0) ** 2 for figures in (left, right)]
            stderr = sum(squares) ** 0.5
        found[name] = {"difference": pair[0] - pair[1], "stderr": stderr}
    return found


def look_up(figures: Figures | None, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any figure
    """Return the figure at `path`, or None where there is none."""
    value: Any = figures
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
