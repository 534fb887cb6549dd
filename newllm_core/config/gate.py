"""What contexts must be before heads are trained on them."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option


@dataclass(frozen=True)
class GateConfig(Section):
    """What contexts must be before heads are trained on them."""

    SECTION = "gate"

    min_train_rank: float = option(0.20, "Least ER/D of training contexts.", low=0, high=1)
    min_val_rank: float = option(0.08, "Least ER/D of validation contexts.", low=0, high=1)
    max_mean_cosine: float = option(
        0.95, "Above this mean pairwise cosine: a global attractor.", low=0, high=1
    )
    min_norm: float = option(
        0.1, "Below this mean norm (as a share of the square root of D): a zero solution.", low=0
    )
