"""How much `analyze` looks at."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option


@dataclass(frozen=True)
class AnalysisConfig(Section, name="analysis"):
    """How much `analyze` looks at. Thresholds of verdicts: `healthy` and `gate`."""

    probe_tokens: int = option(16_384, "Contexts per split, kept as token ids.", low=2)
    probe_passages: int = option(32, "Passages the probe tokens are spread over.", low=1)
    warmup_tokens: int = option(64, "Tokens read before a passage counts.", low=0)
    num_pairs: int = option(20_000, "Sampled pairs for pairwise figures.", low=2)
    dynamics_passages: int = option(
        16, "Passages of a split on which dynamics are measured.", low=1
    )
    dynamics_steps: int = option(
        256, "Tokens of each such passage; sweeps are counted up to here.", low=1
    )
    repeated_tokens: int = option(
        32,
        "CVFP: tokens of a passage that is read again and again; short, so that a second reading "
        "still remembers the first where memory is a few tokens.",
        low=1,
    )
    readings: int = option(6, "CVFP: how often it is read.", low=4)
    exponents: int = option(8, "Lyapunov exponents, the largest ones.", low=1)
    contribution_tokens: int = option(
        32, "Tokens of a passage whose contributions to its last context are measured.", low=1
    )
    memory_lags: int = option(32, "How many tokens back memory is looked for.", low=1)
    memory_tokens: int = option(64, "Frequent tokens that memory probes tell apart.", low=1)
    dependency_contexts: int = option(
        64, "Sampled contexts that read different tokens (token dependency).", low=1
    )
    dependency_tokens: int = option(32, "Sampled tokens that each of them reads.", low=2)
    token_ids: tuple[int, ...] = option(
        (), "Token ids to read instead of sampled ones, such as 100,500,1000.", low=0
    )
    num_singular_vectors: int = option(5, "Top singular vectors shown with their tokens.", low=1)
    tokens_per_singular_vector: int = option(6, "Tokens shown for each of them.", low=1)
