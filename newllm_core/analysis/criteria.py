"""What makes a memory healthy, weak or degenerate: one set of criteria for `analyze` and Phase 2.

The numbers are settings: those of `healthy` and, for degenerate, those of `gate`. Standard library
only, so that the command line can show them without loading torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from newllm_core.config import GateConfig, HealthyConfig

HEALTHY, WEAK, DEGENERATE = "healthy", "weak", "degenerate"
TRAINING = "training"

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Criterion:
    """How one section of the analysis is judged.

    Attributes:
        figure: its name among the figures of a split (see `health`).
        measure: what it is, as tables call it.
        option: of `healthy` and `gate`: `min_` or `max_` stand before it.
        high_is_good: whether healthy values lie above the thresholds.
        messages: a few words for each status.
    """

    figure: str
    measure: str
    option: str
    high_is_good: bool
    messages: Mapping[str, str]

    @property
    def healthy_option(self) -> str:
        """Return the name of the setting in `healthy`."""
        return f"{'min' if self.high_is_good else 'max'}_{self.option}"

    def gate_option(self, split: str) -> str:
        """Return the name of the setting in `gate`; rank has one for each split."""
        if self.option == "rank":
            return "min_train_rank" if split == "train" else "min_val_rank"
        return self.healthy_option

    def judge(
        self, split: str, value: float | None, healthy: HealthyConfig, gate: GateConfig
    ) -> tuple[str, float]:
        """Return the status of a value, and the threshold it was held against.

        What is not a number is degenerate.
        """
        sign = 1 if self.high_is_good else -1
        value = float("nan") if value is None else value
        good = getattr(healthy, self.healthy_option)
        least = getattr(gate, self.gate_option(split))
        if not sign * value >= sign * least:
            return DEGENERATE, least
        return (HEALTHY, good) if sign * value >= sign * good else (WEAK, good)

    def why(self) -> str:
        """Return what the help of both settings says."""
        of_gate = {spec.name: spec.metadata["help"] for spec in fields(GateConfig)}
        of_healthy = {spec.name: spec.metadata["help"] for spec in fields(HealthyConfig)}
        return f"{of_gate[self.gate_option('train')]} {of_healthy[self.healthy_option]}"


def _of(figure: str, measure: str, option: str, high_is_good: bool, *words: str) -> Criterion:
    return Criterion(
        figure,
        measure,
        option,
        high_is_good,
        dict(zip((HEALTHY, WEAK, DEGENERATE), words, strict=True)),
    )


# Section to criterion, in the order in which they are shown.
CRITERIA: dict[str, Criterion] = {
    "cvfp": _of(
        *("drift", "drift", "drift", False),
        *("CVFP holds", "CVFP hardly holds", "CVFP does not hold: no fixed point"),
    ),
    "convergence": _of(
        *("converged", "converged", "converged", True),
        *("contexts settle", "contexts settle slowly", "contexts do not settle"),
    ),
    "global_attractor": _of(
        *("mean_cosine", "pair cosine", "mean_cosine", False),
        *("contexts differ", "contexts share a direction", "all contexts are nearly equal"),
    ),
    "zero_solution": _of(
        *("norm_ratio", "norm/sqrt(D)", "norm", True),
        *("norms are fine", "contexts are short", "contexts are nearly zero"),
    ),
    "explosion": _of(
        *("norm_ratio", "norm/sqrt(D)", "norm", False),
        *("norms are bounded", "contexts are long", "contexts explode"),
    ),
    "distribution": _of(
        *("live_dimensions", "live dims", "live_dimensions", True),
        *("dimensions vary", "some dimensions are dead", "most dimensions are dead"),
    ),
    "information_content": _of(
        *("effective_rank_ratio", "ER/D", "rank", True),
        *("many dimensions in use", "few dimensions in use", "rank has collapsed"),
    ),
    "identity_mapping": _of(
        *("step_cosine", "step cosine", "step_cosine", False),
        *("contexts move", "contexts move slowly", "contexts copy the one before"),
    ),
    "token_dependency": _of(
        *("token_cosine", "token cosine", "token_cosine", False),
        *("tokens matter", "tokens matter little", "tokens are ignored"),
    ),
    "dynamics": _of(
        *("lyapunov_exponent", "exponent λ", "exponent", False),
        "starts are forgotten",
        "starts are hardly forgotten",
        "chaotic: starts never meet",
    ),
    "memory": _of(
        *("tokens_remembered", "tokens kept", "tokens_remembered", True),
        "earlier tokens can be read",
        "little but the last token",
        "tokens cannot be read back",
    ),
}
# In tables, that section which no threshold decides included.
SECTIONS = [*list(CRITERIA)[:2], TRAINING, *list(CRITERIA)[2:]]
