"""Matrices that a single row passes through, in float32.

Shapes: H outputs, K inputs of a matrix.
"""

from torch import Tensor

from newllm_core.native import call


def matrix_vector(matrix_HK: Tensor, vector_K: Tensor) -> Tensor:
    """`W x` [H]."""
    product_H = matrix_HK.new_empty(len(matrix_HK))
    call("matrix_vector", matrix_HK, vector_K, product_H, *matrix_HK.shape)
    return product_H


def vector_matrix(vector_H: Tensor, matrix_HK: Tensor) -> Tensor:
    """`g W` [K]."""
    product_K = matrix_HK.new_empty(matrix_HK.shape[1])
    call("vector_matrix", vector_H, matrix_HK, product_K, *matrix_HK.shape)
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
    product_H = matrix_HK.new_empty(len(matrix_HK))
    tensors = (matrix_HK, mean_HK, square_HK, left_H, right_K, vector_K, product_H)
    beta1, beta2 = betas
    root = (1 - beta2**step) ** -0.5
    numbers = (beta1, beta2, rate / (1 - beta1**step), root, eps)
    call("adam_outer", *tensors, *matrix_HK.shape, *numbers)
    return product_H
