"""Beyond which figures contexts are degenerate: `analyze` says so, and Phase 2 refuses them."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option, share


@dataclass(frozen=True)
class GateConfig(Section, name="gate"):
    """Beyond these a section is degenerate, and `phase2` refuses the checkpoint."""

    max_drift: float = option(
        0.03,
        "CVFP: largest change of contexts from the third reading of a passage to the fourth, as a "
        "share of their norm.",
        low=0,
    )
    min_converged: float = share(0.1, "Least share of tokens whose contexts forget a random start.")
    min_train_rank: float = share(
        0.20, "Least ER/D of training contexts; collapsed runs stay below."
    )
    min_val_rank: float = share(0.08, "Least ER/D of validation contexts.")
    max_mean_cosine: float = share(
        0.95, "Largest mean cosine of pairs of contexts: above it a global attractor."
    )
    min_norm: float = option(
        0.1, "Least mean norm, as a share of the square root of D: below it a zero solution.", low=0
    )
    max_norm: float = option(
        1000.0,
        "Largest mean norm, as a share of the square root of D: above it an explosion.",
        low=0,
    )
    min_live_dimensions: float = share(
        0.5, "Least share of dimensions that vary: by 1 % of the mean square of all entries."
    )
    max_step_cosine: float = share(
        0.95, "Largest mean cosine of a context and the one before: above it contexts are copies."
    )
    max_token_cosine: float = share(
        0.98,
        "Largest mean cosine of what two tokens make of one context: above it tokens are ignored.",
    )
    max_exponent: float = option(
        0.05, "Largest Lyapunov exponent; at 0.05 neighbouring contexts part by e in 20 tokens."
    )
    min_tokens_remembered: float = option(
        0.5,
        "Least sum of tokens read back beyond guesses from the last one; below 0.5 not even that.",
        low=0,
    )
