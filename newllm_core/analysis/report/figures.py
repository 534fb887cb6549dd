"""The figures of a report: where they are, what training changes, and how people read them."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from newllm_core.analysis.criteria import HEALTHY, SECTIONS, STATUSES, Figures

# Keys, places in lists, and what makes one figure of a whole list.
Place = tuple[str | int | Callable[[Any], Any], ...]
# Name in the report; as tables call it; where the figure is. If it is sampled, its standard error
# stands beside it.
HEADLINES: dict[str, tuple[str, Place]] = {
    "effective_rank_ratio": ("ER/D", ("effective_rank_ratio",)),
    "pairwise_cosine": ("pair cosine", ("pairwise_cosine", "mean")),
    "identity_cosine": ("step cosine", ("identity_cosine", "mean")),
    "token_cosine": ("token cosine", ("token_dependency", "mean_cosine")),
    "lyapunov_exponent": ("exponent λ", ("lyapunov_exponent", "mean")),
    "tokens_remembered": ("tokens remembered", ("token_memory", "total")),
}
FIGURES: list[tuple[str, Place]] = [
    ("tokens", ("num_tokens",)),
    ("values", ("num_values",)),
    ("norm", ("euclidean_norm",)),
    ("value, mean", ("values", "mean")),
    ("  std", ("values", "std")),
    ("  median", ("values", "median")),
    ("  smallest", ("values", "min")),
    ("  largest", ("values", "max")),
    ("ER/D", ("effective_rank_ratio",)),
    ("ER/ceiling", ("effective_rank_ceiling_ratio",)),
    ("effective rank", ("effective_rank",)),
    ("actual rank", ("actual_rank",)),
    ("norm, mean", ("norm", "mean")),
    ("norm, std", ("norm", "std")),
    ("pair distance, mean", ("pairwise_l2", "mean")),
    ("  smallest", ("pairwise_l2", "min")),
    ("  largest", ("pairwise_l2", "max")),
    ("pair cosine, mean", ("pairwise_cosine", "mean")),
    ("  standard error", ("pairwise_cosine", "stderr")),
    ("  std", ("pairwise_cosine", "std")),
    ("  largest", ("pairwise_cosine", "max")),
    ("dimension mean, std", ("dimension_mean", statistics.pstdev)),
    ("dimension variance, min", ("dimension_variance", min)),
    ("  mean", ("dimension_variance", statistics.fmean)),
    ("  max", ("dimension_variance", max)),
    ("sparsity", ("sparsity",)),
    ("CVFP: drift of readings 3 to 4", ("repeat_drift", "third_to_fourth")),
    ("converged from a random start", ("converged_ratio",)),
    ("step cosine, c[t-1] to c[t]", ("identity_cosine", "mean")),
    ("  std", ("identity_cosine", "std")),
    ("token cosine", ("token_dependency", "mean_cosine")),
    ("  std", ("token_dependency", "std_cosine")),
    ("  standard error", ("token_dependency", "stderr")),
    ("token distance", ("token_dependency", "mean_l2")),
    ("Lyapunov exponent λ", ("lyapunov_exponent", "mean")),
    ("  standard error", ("lyapunov_exponent", "stderr")),
    ("memory horizon, tokens", ("memory_horizon",)),
    ("echo left at the end", ("echo_state", "index")),
    ("sweeps to 1%, predicted", ("sweeps", "predicted", "1%")),
    ("  typical token", ("sweeps", "measured", "1%")),
    ("  whole text", ("sweeps", "measured_text", "1%")),
    ("  tokens converged by then", ("sweeps", "converged")),
    ("sweeps to 0.01%, predicted", ("sweeps", "predicted", "0.01%")),
    ("  typical token", ("sweeps", "measured", "0.01%")),
    ("  whole text", ("sweeps", "measured_text", "0.01%")),
    ("tokens remembered", ("token_memory", "total")),
    ("  standard error", ("token_memory", "stderr")),
    ("  kept, not guessed from last", ("token_memory", "kept")),
    ("memory capacity", ("memory_capacity", "total")),
    ("first of the spectrum", ("lyapunov_spectrum", "exponents", 0, "mean")),
    ("  last that was measured", ("lyapunov_spectrum", "exponents", -1, "mean")),
    ("Kaplan-Yorke dimension", ("lyapunov_spectrum", "kaplan_yorke_dimension")),
    ("state, sketched places", ("sketch", "places")),
    ("  error of effective rank", ("sketch", "effective_rank_error")),
]
# What heads reach, under `language_model` of a comparison.
LANGUAGE_MODEL = {
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word",
    "loss": "loss, nats per token",
    "accuracy": "accuracy",
}
# From here on digits before the point say less than their number.
WIDEST = 1e6


def look_up(figures: Any, path: Place) -> Any:  # noqa: ANN401 - any figure
    """Return the figure at `path`, or None where there is none."""
    try:
        for key in path:
            figures = key(figures) if callable(key) else figures[key]
    except (KeyError, IndexError, TypeError):
        return None
    return figures


def num_iterations(history: Sequence[Figures]) -> int:
    """Count the iterations of a history, with those that were too many to be kept."""
    return sum(1 + entry.get("left_out", 0) for entry in history)


def differences(
    splits: Mapping[str, Figures], control: Mapping[str, Figures]
) -> dict[str, dict[str, Any]]:
    """Subtract the headline figures of splits and of their random control, where there are any.

    Each has a `difference` and a `stderr`, None if it was not sampled. A comparison that cannot be
    made is empty.
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


def fixed(value: float, shape: str = ".3f") -> str:
    """Return `value` in `shape`, such as .3f or +.3f, or with its power of ten if it is large."""
    sign = "+" if shape.startswith("+") else ""
    return format(value, shape if abs(value) < WIDEST else f"{sign}.2e")


def short(value: float | None, absent: str = "–") -> str:
    """Return `value` in at most six characters, for narrow columns."""
    if value is None:
        return absent
    return f"{value:.2f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.0e}"


def number(value: float | None) -> str:
    """Return `value` in at most ten characters; – where there is none. Counts are exact."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e7):
        return f"{int(value):,}"
    if 1e4 <= abs(value) < WIDEST:
        return f"{value:,.0f}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < WIDEST else f"{value:.2e}"


def shape_text(shape: Sequence[int]) -> str:
    """Say how large a matrix or vector is."""
    if len(shape) == 1:
        return f"{shape[0]:,} values of one dimension, so without ranks and pairs"
    return f"{shape[0]:,} rows of {shape[1]:,} dimensions"


def figure_rows(
    columns: Iterable[Figures | None], figures: Sequence[tuple[str, Place]] = FIGURES
) -> Iterator[tuple[str, list[str]]]:
    """Yield the label of every figure that any column has, and how it reads in each."""
    columns = list(columns)
    for label, path in figures:
        values = [look_up(figures, path) for figures in columns]
        if any(value is not None for value in values):
            yield label, [number(value) for value in values]


def difference_rows(columns: Sequence[Figures]) -> list[tuple[str, list[str]]]:
    """Return the label of every headline figure, and its difference in each of some comparisons."""
    return [
        (label, [difference(found.get(name)) for found in columns])
        for name, (label, _) in HEADLINES.items()
    ]


def difference(found: Figures | None) -> str:
    """Return a difference with its sign, and ± its standard error where it has one."""
    if found is None or found["difference"] is None:
        return ""
    error = found["stderr"]
    return fixed(found["difference"], "+.3f") + (f" ±{fixed(error)}" if error else "")


def printable(text: str) -> str:
    """Return a token in a line of text: spaces shown, control characters escaped."""
    return (text if text.isprintable() else repr(text)[1:-1]).replace(" ", "␣")


def last_text(entry: Figures) -> tuple[str, Figures | None]:
    """Return the text that a column of a comparison shows, validation or the only one: figures."""
    name = "train" if entry["validation"] is None and entry["train"] else "validation"
    return name, entry[name]


def health_rows(entries: Sequence[Figures]) -> Iterator[tuple[str, list[str]]]:
    """Yield each section and its status in the columns of a comparison, that of the worse split."""
    judged = [by_section(entry["verdicts"] or []) for entry in entries]

    def cell(found: dict[str, dict[str, Figures]], section: str) -> str:
        if section not in found:  # nobody asks how a foreign network was trained
            return "–" if found else "explodes"
        return max((v["status"] for v in found[section].values()), key=STATUSES.index)

    for section in SECTIONS:
        yield section.replace("_", " "), [cell(found, section) for found in judged]


def by_section(verdicts: Sequence[Figures]) -> dict[str, dict[str, Figures]]:
    """Return the verdict of every section on every split, in the order given."""
    found: dict[str, dict[str, Figures]] = {}
    for verdict in verdicts:
        found.setdefault(verdict["section"], {})[verdict["split"]] = verdict
    return found


def unhealthy(
    verdicts: Sequence[Figures], words_of: Callable[[Figures], str]
) -> dict[tuple[str, str, str], list[str]]:
    """Return section, status and words of what is not healthy, and the splits where it is so."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict["status"] != HEALTHY:
            key = (verdict["section"], verdict["status"], words_of(verdict))
            found.setdefault(key, []).append(verdict["split"])
    return found


def names_in(history: Sequence[Figures], group: str) -> list[str]:
    """Return what is named in a group of any entry of the history of Phase 1."""
    return list(dict.fromkeys(name for entry in history for name in entry.get(group) or {}))
