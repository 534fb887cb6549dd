"""From one token head to one after every block."""

import copy
import dataclasses

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.errors import InputError


def expand(checkpoint: Checkpoint) -> Checkpoint:
    """Clone the trained head, so that every block has one; the last head's logits stay the same.

    The given checkpoint stays as it is. `results` of the new one is empty: it has heads that nobody
    has evaluated yet.

    Raises:
        InputError: the head was never trained, or every block has one already.
    """
    checkpoint.require_trained_head()
    num_heads = checkpoint.model.num_heads
    if num_heads >= checkpoint.model.config.num_blocks:
        raise InputError(
            f"this checkpoint already has {num_heads} head(s), one for each of its "
            f"{checkpoint.model.config.num_blocks} block(s): there is nothing to expand"
        )
    model = copy.deepcopy(checkpoint.model)
    model.expand_heads()
    return dataclasses.replace(checkpoint, model=model, phase="expand", results={})
