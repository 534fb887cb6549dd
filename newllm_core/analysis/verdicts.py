"""A verdict for every section and split: healthy, weak or degenerate."""

from collections.abc import Callable, Mapping
from typing import Any

from newllm_core.analysis.convergence import final_converged_ratio, largest_weight_change
from newllm_core.analysis.distribution import live_dimensions
from newllm_core.analysis.thresholds import (
    DEGENERATE,
    LEAST_WEIGHT_CHANGE,
    THRESHOLDS,
    WEAK,
)

Figures = Mapping[str, Any]
Verdict = dict[str, Any]

VALUES: dict[str, Callable[[Figures], float]] = {
    "global_attractor": lambda figures: figures["pairwise_cosine"]["mean"],
    "zero_solution": lambda figures: figures["norm"]["mean"] / figures["context_dim"] ** 0.5,
    "distribution": lambda figures: live_dimensions(
        figures["dimension_mean"], figures["dimension_variance"]
    ),
    "information_content": lambda figures: figures["effective_rank_ceiling_ratio"],
    "identity_mapping": lambda figures: figures["identity_cosine"],
    "token_dependency": lambda figures: figures["token_dependency"]["mean_cosine"],
    "dynamics": lambda figures: figures["lyapunov_exponent"]["mean"],
    "memory": lambda figures: figures["token_memory"]["total"],
}


def verdicts(splits: Mapping[str, Figures], convergence: Figures) -> list[Verdict]:
    """Judge every section of every split.

    Args:
        splits: name to the figures of the split.
        convergence: `history` and `vacuous_terms`.

    Returns:
        For each `section` and `split`: `status`, `value`, `threshold` and a `message` of a few
        words. `value` is None where nothing was measured.
    """
    judged = [judge_convergence(split, convergence) for split in splits]
    for section, value in VALUES.items():
        judged += [judge(section, split, value(figures)) for split, figures in splits.items()]
    return judged


def judge(section: str, split: str, value: float) -> Verdict:
    """Return the verdict on one number."""
    rule = THRESHOLDS[section]
    status, threshold = rule.judge(value)
    return _verdict(section, split, status, value, threshold, rule.messages[status])


def judge_convergence(split: str, convergence: Figures) -> Verdict:
    """The verdict on a history. What trained nothing has not converged, whatever it measured."""
    history, vacuous = convergence["history"], convergence["vacuous_terms"]
    ratio = final_converged_ratio(history, split)
    threshold = THRESHOLDS["convergence"].healthy
    moved = largest_weight_change(history)
    if moved is not None and moved <= LEAST_WEIGHT_CHANGE:
        words = "nothing was trained: weights never moved"
        if vacuous:
            words += f", no gradient from {', '.join(vacuous)}"
        return _verdict("convergence", split, DEGENERATE, moved, LEAST_WEIGHT_CHANGE, words)
    if vacuous:
        words = f"no gradient from {', '.join(vacuous)}"
        return _verdict("convergence", split, DEGENERATE, ratio, threshold, words)
    if not history:
        return _verdict("convergence", split, WEAK, None, threshold, "untrained: no history")
    if ratio is None:
        return _verdict("convergence", split, WEAK, None, threshold, "was never measured")
    return judge("convergence", split, ratio)


def _verdict(
    section: str, split: str, status: str, value: float | None, threshold: float, message: str
) -> Verdict:
    return {
        "section": section,
        "split": split,
        "status": status,
        "value": value,
        "threshold": threshold,
        "message": message,
    }
