"""The loop in C (`loops.c`) where it could be compiled.

Installing newllm compiles it if there is a compiler (on x86-64, GCC 12 or newer).
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)


@cache
def library() -> ctypes.CDLL | None:
    """Load the compiled loops; None where they were not compiled or the processor is too old."""
    spec = find_spec("newllm_core.kernels.loops")
    if spec is None or spec.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(spec.origin)
        for dtype in DTYPES:
            _softmax_gradient(loaded, dtype).argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2
    except (AttributeError, OSError) as error:
        raise ImportError(
            f"{spec.origin} is of another newllm or machine: install newllm again ({error})"
        ) from error
    return loaded if loaded.newllm_usable() else None


def is_usable() -> bool:
    """Say whether there is a library for this machine."""
    return library() is not None


def _softmax_gradient(loaded: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
    return getattr(loaded, f"newllm_softmax_gradient_{str(dtype).removeprefix('torch.')}")


def softmax_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Turn logits into softmax minus one-hot target, in place; returns nats of the targets [N].

    Both are contiguous and in memory, logits of one of `DTYPES`, targets int64.

    Raises:
        IndexError: a target is not a column.
    """
    rows, columns = logits_NV.shape
    space_V = logits_NV.new_empty(columns, dtype=torch.float32)
    nats_N = logits_NV.new_empty(rows, dtype=torch.float32)
    pointers = (tensor.data_ptr() for tensor in (logits_NV, targets_N, space_V, nats_N))
    if _softmax_gradient(library(), logits_NV.dtype)(*pointers, rows, columns):
        raise IndexError(f"a target is not one of {columns} columns")
    return nats_N
