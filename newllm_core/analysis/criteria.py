"""What makes a memory healthy, weak or degenerate: criteria and verdicts of `analyze` and Phase 2.

The numbers are settings: those of `healthy` and, for degenerate, those of `gate`. Standard library
only, so that the command line can show them without loading torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from newllm_core.config import Config, GateConfig, HealthyConfig

HEALTHY, WEAK, DEGENERATE = "healthy", "weak", "degenerate"
# From good to bad.
STATUSES = (HEALTHY, WEAK, DEGENERATE)
TRAINING = "training"

Figures = Mapping[str, Any]
Verdict = dict[str, Any]


@dataclass(frozen=True)
class Criterion:
    """How one section of the analysis is judged."""

    figure: str  # its name among the figures of `health_of`
    measure: str  # what it is, as tables call it
    option: str  # of `healthy` and `gate`: `min_` or `max_` stand before it
    high_is_good: bool
    messages: tuple[str, str, str]  # a few words for each of `STATUSES`

    @property
    def healthy_option(self) -> str:
        """Return the name of the setting in `healthy`."""
        return f"{'min' if self.high_is_good else 'max'}_{self.option}"

    def gate_option(self, split: str) -> str:
        """Return the name of the setting in `gate`; rank has one for each split."""
        if self.option == "rank":
            return "min_train_rank" if split == "train" else "min_val_rank"
        return self.healthy_option

    def reaches(self, value: float, threshold: float) -> bool:
        """Say whether a value is as good as a threshold."""
        return value >= threshold if self.high_is_good else value <= threshold

    def why(self) -> str:
        """Return what the help of both settings says."""
        of_gate = {spec.name: spec.metadata["help"] for spec in fields(GateConfig)}
        of_healthy = {spec.name: spec.metadata["help"] for spec in fields(HealthyConfig)}
        return f"{of_gate[self.gate_option('train')]} {of_healthy[self.healthy_option]}"


# Section to criterion, in the order in which they are shown.
CRITERIA: dict[str, Criterion] = {
    "cvfp": Criterion(
        *("drift", "drift", "drift", False),
        ("CVFP holds", "CVFP hardly holds", "CVFP does not hold: no fixed point"),
    ),
    "convergence": Criterion(
        *("converged", "converged", "converged", True),
        ("contexts settle", "contexts settle slowly", "contexts do not settle"),
    ),
    "global_attractor": Criterion(
        *("mean_cosine", "pair cosine", "mean_cosine", False),
        ("contexts differ", "contexts share a direction", "all contexts are nearly equal"),
    ),
    "zero_solution": Criterion(
        *("norm_ratio", "norm/sqrt(D)", "norm", True),
        ("norms are fine", "contexts are short", "contexts are nearly zero"),
    ),
    "explosion": Criterion(
        *("norm_ratio", "norm/sqrt(D)", "norm", False),
        ("norms are bounded", "contexts are long", "contexts explode"),
    ),
    "distribution": Criterion(
        *("live_dimensions", "live dims", "live_dimensions", True),
        ("dimensions vary", "some dimensions are dead", "most dimensions are dead"),
    ),
    "information_content": Criterion(
        *("effective_rank_ratio", "ER/D", "rank", True),
        ("many dimensions in use", "few dimensions in use", "rank has collapsed"),
    ),
    "identity_mapping": Criterion(
        *("step_cosine", "step cosine", "step_cosine", False),
        ("contexts move", "contexts move slowly", "contexts copy the one before"),
    ),
    "token_dependency": Criterion(
        *("token_cosine", "token cosine", "token_cosine", False),
        ("tokens matter", "tokens matter little", "tokens are ignored"),
    ),
    "dynamics": Criterion(
        *("lyapunov_exponent", "exponent λ", "exponent", False),
        ("starts are forgotten", "starts are hardly forgotten", "chaotic: starts never meet"),
    ),
    "memory": Criterion(
        *("tokens_kept", "tokens kept", "tokens_remembered", True),
        ("earlier tokens can be read", "little but the last token", "tokens cannot be read back"),
    ),
}
# In tables, that section which no threshold decides included.
SECTIONS = [*list(CRITERIA)[:2], TRAINING, *list(CRITERIA)[2:]]


def verdicts(
    health: Mapping[str, Figures], training: Figures | None, config: Config
) -> list[Verdict]:
    """Judge every section of every split by the thresholds in `healthy` and `gate`.

    `health` is for each split what `health.health_of` returns; for `training` see `judge_training`:
    there is none of a network that newllm did not train. A figure that an older version did not
    measure is not judged. The `value` of a verdict is None where a figure is not a number;
    `healthy_if` is the healthy threshold in words.
    """
    judged = []
    for section, criterion in CRITERIA.items():
        measured = [split for split in health if criterion.figure in health[split]]
        judged += [judge(section, split, health[split], config) for split in measured]
        if section == "convergence" and training is not None:
            judged += [judge_training(split, training) for split in health]
    return judged


def judge(section: str, split: str, health: Figures, config: Config) -> Verdict:
    """Return the verdict of one section on one split."""
    criterion = CRITERIA[section]
    value = health[criterion.figure]
    good = getattr(config.healthy, criterion.healthy_option)
    least = getattr(config.gate, criterion.gate_option(split))
    # What is not a number is degenerate.
    figure = float("nan") if value is None else value
    status, threshold = DEGENERATE, least
    if criterion.reaches(figure, least):
        status, threshold = HEALTHY if criterion.reaches(figure, good) else WEAK, good
    return {
        "section": section,
        "split": split,
        "status": status,
        "value": value,
        "threshold": threshold,
        "message": criterion.messages[STATUSES.index(status)],
        "healthy_if": f"{criterion.measure} {'≥' if criterion.high_is_good else '≤'} {good:g}",
    }


def judge_training(split: str, training: Figures) -> Verdict:
    """Judge whether the blocks were trained at all, and by what: see `health.training_of`."""
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


def cvfp_line(report: Figures) -> str:
    """Return in a sentence whether CVFP holds, by what `analyze` returns."""
    judged = [v for v in report["verdicts"] if v["section"] == "cvfp"]
    worst = max(judged, key=lambda verdict: STATUSES.index(verdict["status"]))

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
