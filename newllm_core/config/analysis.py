"""How much `analyze` looks at."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option


@dataclass(frozen=True)
class AnalysisConfig(Section):
    """How much `analyze` looks at. Thresholds of verdicts: `newllm_core.analysis.thresholds`."""

    SECTION = "analysis"

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
    memory_lags: int = option(32, "How many tokens back memory is looked for.", low=1)
    num_singular_vectors: int = option(5, "Top singular vectors shown with their tokens.", low=1)
