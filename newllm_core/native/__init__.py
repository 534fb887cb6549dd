"""Loops in C that torch has no single operation for (`kernels.c`), where they could be compiled.

Installing newllm compiles them if there is a compiler (on x86-64, GCC 12 or newer); without one the
plain path beside every call does the same work, slower. `suits` says whether a call may be made.

Shapes: N rows, V columns of logits; H outputs, K inputs of a matrix.
"""

import ctypes
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

SOFTMAX_DTYPES = (torch.float32, torch.bfloat16)
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_SIGNATURES = {
    "newllm_softmax_gradient_float32": (_NUMBER, [_POINTER] * 3 + [_COUNT] * 2),
    "newllm_softmax_gradient_bfloat16": (_NUMBER, [_POINTER] * 3 + [_COUNT] * 2),
    "newllm_matrix_vector": (None, [_POINTER] * 3 + [_COUNT] * 2),
    "newllm_vector_matrix": (None, [_POINTER] * 3 + [_COUNT] * 2),
    "newllm_adam_outer": (None, [_POINTER] * 7 + [_COUNT] * 2 + [_NUMBER] * 5),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops; None where they were not compiled or the processor is too old."""
    spec = find_spec("newllm_core.native.kernels")
    if spec is None or spec.origin is None:
        return None
    loaded = ctypes.CDLL(spec.origin)
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise ImportError(f"{spec.origin} is of an older newllm: install it again") from error
    return loaded if loaded.newllm_usable() else None


def suits(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Whether the loops can work on these: contiguous, in memory, of one of `dtypes`."""
    return library() is not None and all(
        t.device.type == "cpu" and t.dtype in dtypes and t.is_contiguous() for t in tensors
    )


def softmax_gradient(logits_NV: Tensor, targets_N: Tensor) -> float:
    """Turn logits into softmax minus one-hot target, in place; returns the summed nats.

    Raises:
        IndexError: a target is not a column.
    """
    rows, columns = logits_NV.shape
    space_V = torch.empty(columns)
    name = f"newllm_softmax_gradient_{str(logits_NV.dtype).removeprefix('torch.')}"
    targets_N = targets_N.contiguous()
    nats: float = getattr(library(), name)(*_at(logits_NV, targets_N, space_V), rows, columns)
    if nats == -1:
        raise IndexError(f"a target is not one of {columns} columns")
    return nats


def matrix_vector(matrix_HK: Tensor, vector_K: Tensor) -> Tensor:
    """`W x` [H]."""
    product_H = torch.empty(len(matrix_HK))
    _call("newllm_matrix_vector", matrix_HK, vector_K, product_H, shape=matrix_HK.shape)
    return product_H


def vector_matrix(vector_H: Tensor, matrix_HK: Tensor) -> Tensor:
    """`g W` [K]."""
    product_K = torch.empty(matrix_HK.shape[1])
    _call("newllm_vector_matrix", vector_H, matrix_HK, product_K, shape=matrix_HK.shape)
    return product_K


def adam_outer(
    matrix_HK: Tensor,
    mean_HK: Tensor,
    square_HK: Tensor,
    left_H: Tensor,
    right_K: Tensor,
    vector_K: Tensor,
    *,
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> Tensor:
    """Step number `step` of Adam with the gradient `left rightᵀ`: matrix and moments, in place.

    Returns `W vector` [H] of the new matrix, which costs nothing more.
    """
    product_H = torch.empty(len(matrix_HK))
    tensors = (matrix_HK, mean_HK, square_HK, left_H, right_K, vector_K, product_H)
    beta1, beta2 = betas
    root = (1 - beta2**step) ** -0.5
    numbers = (beta1, beta2, rate / (1 - beta1**step), root, eps)
    _call("newllm_adam_outer", *tensors, shape=matrix_HK.shape, numbers=numbers)
    return product_H


def _call(
    name: str, *tensors: Tensor, shape: tuple[int, ...], numbers: tuple[float, ...] = ()
) -> None:
    getattr(library(), name)(*_at(*tensors), *shape, *numbers)


def _at(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
