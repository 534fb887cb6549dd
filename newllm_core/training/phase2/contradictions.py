"""Options, data and models of Phase 2 that do not go together."""

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Phase2Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.errors import ConfigError, InputError


def refuse_contradictions(
    checkpoint: Checkpoint, dataset: PreparedDataset, options: Phase2Config
) -> None:
    """Raise for options, data and model that do not go together."""
    if options.freeze_context and checkpoint.model.config.tie_weights:
        raise ConfigError(
            "phase2.freeze_context cannot train a head that is tied to the embedding: the contexts "
            "would change with it. Fine-tune (without --freeze-context), or start from a phase1 "
            "with model.tie_weights = false"
        )
    for name in ("objective", "reg"):
        named, weight = getattr(options, name), getattr(options, f"{name}_weight")
        if options.freeze_context and (weight or (named and weight is None)):
            raise ConfigError(
                f"phase2.{name} shapes contexts, and phase2.freeze_context keeps them as they are: "
                "leave out one of them"
            )
    checkpoint.require_tokenizer(dataset.tokenizer_json)
    if min(len(dataset.train.tokens), options.max_tokens or len(dataset.train.tokens)) < 2:
        raise InputError("there are fewer than two training tokens: prepare more text")
