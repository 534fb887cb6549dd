"""The gradient of cross-entropy in the place of logits.

Shapes: N rows, V columns of logits.
"""

import torch
from torch import Tensor

from newllm_core.native import call


def softmax_gradient(logits_NV: Tensor, targets_N: Tensor) -> float:
    """Turn logits into softmax minus one-hot target, in place; returns the summed nats.

    Targets are contiguous int64.

    Raises:
        IndexError: a target is not a column.
    """
    rows, columns = logits_NV.shape
    space_V = logits_NV.new_empty(columns, dtype=torch.float32)
    arguments = (logits_NV, targets_N, space_V, rows, columns)
    nats = call("softmax_gradient", *arguments, dtype=logits_NV.dtype)
    if nats == -1:
        raise IndexError(f"a target is not one of {columns} columns")
    return nats
