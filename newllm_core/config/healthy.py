"""From which figures on contexts are healthy; between these and the gate's they are weak."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option, share


@dataclass(frozen=True)
class HealthyConfig(Section, name="healthy"):
    """From these figures on `analyze` calls a section healthy. See `gate` for their meaning."""

    max_drift: float = option(0.01, "CVFP holds up to this drift.", low=0)
    min_converged: float = share(
        0.5,
        "Converged tokens: contexts that start elsewhere need some tokens to meet, so even a good "
        "model stays below 1; a chaotic one stays near 0.",
    )
    min_rank: float = share(0.5, "ER/D: untrained blocks reach 0.8 to 0.9, healthy ones more.")
    max_mean_cosine: float = share(0.5, "Cosine of pairs: diverse contexts are near 0.")
    min_norm: float = option(
        0.2, "Mean norm: LayerNorm gives 1, a bounded gate a few tenths.", low=0
    )
    max_norm: float = option(10.0, "Mean norm: nothing that is bounded comes near.", low=0)
    min_live_dimensions: float = share(
        0.9, "Dimensions that vary; a dead one says the same in every context."
    )
    max_step_cosine: float = share(
        0.9, "Cosine of neighbours: 0.4 to 0.5 is usual, 0.9 a memory of about ten tokens."
    )
    max_token_cosine: float = share(
        0.9, "Cosine of different tokens: at 0.98 a token decides 2 % of the energy."
    )
    max_exponent: float = option(
        -0.01, "Lyapunov exponent: contexts draw near by 1/e within 100 tokens."
    )
    min_tokens_remembered: float = option(
        1.25, "Tokens read back: the one just read is worth up to 1.", low=0
    )
