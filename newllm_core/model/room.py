"""Whether this machine can hold a model."""

import os

from newllm_core.errors import ConfigError


def refuse_too_large(num_parameters: int) -> None:
    """Raise `ConfigError` for more parameters (of float32) than this machine can hold."""
    needed = 4 * num_parameters
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    except (ValueError, OSError):  # a system that does not say
        return
    if needed > memory:
        raise ConfigError(
            f"the model has {num_parameters:,} parameters, which take {needed / 1e9:,.0f} GB of "
            f"memory, and this machine has {memory / 1e9:,.0f}: set a smaller context_dim, "
            "embed_dim, hidden units or layer_structure"
        )
