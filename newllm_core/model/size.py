"""How large a model will be, before any of it is made.

C context_dim, E embed_dim, H hidden_dim, V vocabulary.
"""

import os

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError

BYTES = 4


def count_parameters(
    config: ModelConfig, vocab_size: int, *, num_heads: int, reconstruction: bool
) -> int:
    """Parameters of the `LanguageModel` with these arguments; tied ones count once."""
    context, embed = config.context_dim, config.embed_dim
    width = context + embed
    hidden = width if config.hidden_dim is None else config.hidden_dim
    layer = hidden * width + hidden + 2 * embed
    if hidden != width:
        layer += hidden * width + width
    layer += context * width + context if config.update == "gated" else 2 * context
    if config.update == "mogrifier":
        rounds = config.mogrifier_rounds
        layer = 3 * context * (width + 1) + rounds * context * embed
        layer += (rounds + 1) // 2 * embed + rounds // 2 * context
    read = embed if config.tie_weights else context
    projection = context * embed + embed if config.tie_weights else 0
    heads = num_heads * (projection + read * vocab_size + vocab_size)
    if config.tie_weights:
        heads -= embed * vocab_size
    decoder = 0
    if reconstruction:
        decoder = context * width + width
        decoder += width * width + width if config.decoder == "mlp" else 0
    return vocab_size * embed + sum(config.layer_structure) * layer + heads + decoder


def refuse_too_large(num_parameters: int) -> None:
    """Raise `ConfigError` for more parameters than this machine can hold."""
    needed = num_parameters * BYTES
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ConfigError(
            f"the model has {num_parameters:,} parameters, which take {needed / 1e9:,.0f} GB of "
            f"memory, and this machine has {memory / 1e9:,.0f}: set a smaller context_dim, "
            "embed_dim, hidden_dim or layer_structure"
        )
