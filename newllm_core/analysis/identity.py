"""Identity mapping: whether a context is anything but the one before it.

Shapes: P passages, S contexts in a row, C context_dim.
"""

import torch
from torch import Tensor

from newllm_core.analysis.summary import cosine


def identity_cosine(trajectory_PSC: Tensor) -> dict[str, float]:
    """Return `mean` and `std` of the cosine of c_{t-1} and c_t within passages.

    Both are 0 where a passage has one context only.
    """
    if trajectory_PSC.shape[1] < 2:
        return {"mean": 0.0, "std": 0.0}
    pairs = [cosine(passage_SC[:-1], passage_SC[1:]) for passage_SC in trajectory_PSC]
    cosines = torch.cat(pairs)
    return {"mean": float(cosines.mean()), "std": float(cosines.std(correction=0))}
