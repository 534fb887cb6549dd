"""Identity mapping: whether a context is anything but the one before it.

Shapes: P passages, S contexts in a row, C context_dim.
"""

from torch import Tensor

from newllm_core.analysis.summary import cosine


def identity_cosine(trajectory_PSC: Tensor) -> float:
    """Mean cosine of c_{t-1} and c_t within passages; 0 where a passage has one context only."""
    if trajectory_PSC.shape[1] < 2:
        return 0.0
    total, count = 0.0, 0
    for passage_SC in trajectory_PSC:
        cosines = cosine(passage_SC[:-1], passage_SC[1:])
        total += float(cosines.sum())
        count += len(cosines)
    return total / count
