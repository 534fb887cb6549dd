"""From one token head to one after every block."""

import copy
import dataclasses

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.errors import InputError


def expand(checkpoint: Checkpoint) -> Checkpoint:
    """Clone the head, so that every block has one; the last head's logits stay the same.

    The given checkpoint stays as it is. `results` of the new one is empty: it has heads that nobody
    has evaluated yet. After Phase 1, heads are as untrained as the one they are copies of, and the
    checkpoint still is one of Phase 1. `InputError` if every block has a head already.
    """
    num_heads = checkpoint.model.num_heads
    if num_heads >= checkpoint.model.config.num_blocks:
        raise InputError(
            f"this checkpoint already has {num_heads} head(s), one for each of its "
            f"{checkpoint.model.config.num_blocks} block(s): there is nothing to expand"
        )
    model = copy.deepcopy(checkpoint.model)
    model.expand_heads()
    phase = "phase1" if checkpoint.phase == "phase1" else "expand"
    return dataclasses.replace(checkpoint, model=model, phase=phase, results={})
