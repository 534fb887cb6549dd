"""A verdict for every section and split: healthy, weak or degenerate."""

from collections.abc import Mapping, Sequence
from typing import Any

from newllm_core.analysis.criteria import CRITERIA, DEGENERATE, HEALTHY, TRAINING, WEAK
from newllm_core.config import Config

Figures = Mapping[str, Any]
Verdict = dict[str, Any]


def verdicts(
    health: Mapping[str, Figures], training: Figures | None, config: Config
) -> list[Verdict]:
    """Judge every section of every split.

    Args:
        health: for each split what `health.health_of` returns.
        training: see `judge_training`; None of a network that newllm did not train.
        config: uses the thresholds in `healthy` and `gate`.

    Returns:
        For each `section` and `split`: `status`, `value`, `threshold` and a `message` of a few
        words; `healthy_if` is the threshold of a healthy value in words. `value` is None where a
        figure is not a number.
    """
    judged = []
    for section in CRITERIA:
        judged += [judge(section, split, health[split], config) for split in health]
        if section == "convergence" and training is not None:
            judged += [judge_training(split, training) for split in health]
    return judged


def judge(section: str, split: str, health: Figures, config: Config) -> Verdict:
    """Return the verdict of one section on one split."""
    criterion = CRITERIA[section]
    value = health[criterion.figure]
    status, threshold = criterion.judge(split, value, config.healthy, config.gate)
    good = getattr(config.healthy, criterion.healthy_option)
    return {
        "section": section,
        "split": split,
        "status": status,
        "value": value,
        "threshold": threshold,
        "message": criterion.messages[status],
        "healthy_if": f"{criterion.measure} {'≥' if criterion.high_is_good else '≤'} {good:g}",
    }


def judge_training(split: str, training: Figures) -> Verdict:
    """Judge whether the blocks were trained at all, and by what.

    Args:
        split: of the verdict; it is the same for all.
        training: `weight_change` of the blocks from their initial weights, `vacuous_terms` of
            Phase 1, and `untrained_blocks`: whether Phase 2 began with untrained ones on purpose.
    """
    moved, vacuous = training["weight_change"], training["vacuous_terms"]
    status, words = HEALTHY, "blocks were trained"
    if moved == 0:
        status, words = DEGENERATE, "untrained: no weight of the blocks moved"
    elif training["untrained_blocks"]:
        status, words = WEAK, "Phase 1 trained nothing: Phase 2 began with untrained blocks"
    if vacuous:
        status = WEAK if status == HEALTHY else status
        words += f", no gradient from {', '.join(vacuous)}"
    return {
        "section": TRAINING,
        "split": split,
        "status": status,
        "value": moved,
        "threshold": 0.0,
        "message": words,
        "healthy_if": "weights moved",
    }


def degenerate(judged: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts that Phase 2 refuses."""
    return [verdict for verdict in judged if verdict["status"] == DEGENERATE]


def cvfp_line(report: Figures) -> str:
    """Return in a sentence whether the context vector fixed-point property holds.

    Args:
        report: what `analyze` returns.
    """
    worst = max(
        (v for v in report["verdicts"] if v["section"] == "cvfp"),
        key=lambda v: (HEALTHY, WEAK, DEGENERATE).index(v["status"]),
    )

    def drifts(splits: Figures) -> str:
        found = [splits[split] for split in ("train", "validation") if splits.get(split)]
        values = [of["repeat_drift"]["third_to_fourth"] for of in found]
        return " / ".join("no number" if value is None else f"{value:.0e}" for value in values)

    line = (
        f"{worst['message'].partition(':')[0]}: from the third reading of a passage to the fourth, "
        f"contexts change by {drifts(report)} of their norm (train / validation)"
    )
    control = drifts(report["random_control"])
    if not report["validation"]:
        line = line.replace(" (train / validation)", "")
    return f"{line}, untrained by {control}" if control else line
