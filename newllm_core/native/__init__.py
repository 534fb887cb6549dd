"""Loops in C that torch has no single operation for (`kernels.c`), where they could be compiled.

Installing newllm compiles them if there is a compiler (on x86-64, GCC 12 or newer); without one the
plain path beside every call does the same work, slower. `suits` says whether a call may be made.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

# What products read and give; whatever else the loops read is float32.
DTYPES = (torch.float32, torch.bfloat16)
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_FOR_EACH_DTYPE = {
    "softmax_gradient": (_NUMBER, [_POINTER] * 3 + [_COUNT] * 2),
    "gate": (None, [_POINTER] * 5 + [_COUNT]),
    "gate_backward": (None, [_POINTER] * 4 + [_COUNT]),
    "cell": (None, [_POINTER] * 7 + [_COUNT] * 2),
    "cell_backward": (None, [_POINTER] * 8 + [_COUNT] * 2),
    "residual": (None, [_POINTER] * 9 + [_COUNT] * 3),
    "residual_backward": (None, [_POINTER] * 11 + [_COUNT] * 4),
}
_SIGNATURES = {
    "look_out": (None, [_POINTER] + [_COUNT] * 2),
    "matrix_vector": (None, [_POINTER] * 3 + [_COUNT] * 2),
    "vector_matrix": (None, [_POINTER] * 3 + [_COUNT] * 2),
    "adam_outer": (None, [_POINTER] * 7 + [_COUNT] * 2 + [_NUMBER] * 5),
    "sum_of_squares": (_NUMBER, [_POINTER, _COUNT]),
    "adam_narrow": (None, [_POINTER] * 5 + [_COUNT] + [_NUMBER] * 6),
} | {
    f"{name}_{str(dtype).removeprefix('torch.')}": signature
    for name, signature in _FOR_EACH_DTYPE.items()
    for dtype in DTYPES
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops; None where they were not compiled or the processor is too old."""
    spec = find_spec("newllm_core.native.kernels")
    if spec is None or spec.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(spec.origin)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, f"newllm_{name}")
            function.restype, function.argtypes = result, arguments
    except (AttributeError, OSError) as error:
        raise ImportError(
            f"{spec.origin} is of another newllm or machine: install newllm again ({error})"
        ) from error
    return loaded if loaded.newllm_usable() else None


def suits(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Whether the loops can work on these: contiguous, in memory, of one of `dtypes`."""
    return library() is not None and all(
        t.is_cpu and t.dtype in dtypes and t.is_contiguous() for t in tensors
    )


def call(name: str, *arguments: Tensor | float | None, dtype: torch.dtype | None = None) -> float:
    """Call one of the loops; nothing is checked.

    Args:
        name: without "newllm_" and dtype.
        arguments: in the order of `kernels.c`.
        dtype: of products, for what exists once for each.

    Returns:
        What the loop returns, if anything.
    """
    addresses = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    result: float = _loop(name, dtype)(*addresses)
    return result


@cache
def _loop(name: str, dtype: torch.dtype | None) -> Callable[..., float]:
    if dtype is not None:
        name = f"{name}_{str(dtype).removeprefix('torch.')}"
    loop: Callable[..., float] = getattr(library(), f"newllm_{name}")
    return loop
