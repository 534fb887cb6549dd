"""How large a model will be, before any of it takes memory."""

import os

from newllm_core.errors import ConfigError

BYTES = 4


def refuse_too_large(num_parameters: int) -> None:
    """Raise `ConfigError` for more parameters than this machine can hold."""
    needed = num_parameters * BYTES
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ConfigError(
            f"the model has {num_parameters:,} parameters, which take {needed / 1e9:,.0f} GB of "
            f"memory, and this machine has {memory / 1e9:,.0f}: set a smaller context_dim, "
            "embed_dim, hidden units or layer_structure"
        )
