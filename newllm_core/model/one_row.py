"""Gradients of matrices that one row passed through: two vectors instead of a matrix.

For one row `x` the gradient of `W` in `y = W x` is the outer product of the gradient of `y` and
`x`. Made whole it is written to memory, read for its norm and read again by the optimizer; kept as
two vectors it costs nothing. Inside `collect` the matrix products of one row hand over the vectors
and leave `grad` of their matrices empty; outside it nothing is different.

A product of one row reads its matrix from memory once and computes next to nothing, and libraries
let a single core do it. Two such products at a time (`cores.at_once`) use two.

Shapes: K inputs, H outputs of a matrix [H, K].
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from newllm_core import native
from newllm_core.native.one_row import matrix_vector, vector_matrix


class OuterProduct(NamedTuple):
    """The gradient `left rightᵀ` of the first rows of a matrix, as many as `left` has; 0 below."""

    matrix: Tensor
    left: Tensor
    right: Tensor


_collected: list[OuterProduct] | None = None


@contextmanager
def collect() -> Iterator[list[OuterProduct]]:
    """Inside, a backward pass fills the list; each matrix may be used once."""
    global _collected
    found: list[OuterProduct] = []
    _collected = found
    try:
        yield found
    finally:
        _collected = None


def keep_apart(matrix: Tensor, left: Tensor, right: Tensor) -> bool:
    """Whether a gradient was handed over, so that it need not be made."""
    if _collected is None:
        return False
    _collected.append(OuterProduct(matrix, left.detach(), right.detach()))
    return True


class Step(Protocol):
    """A change of a matrix that `product` can make on the way (`training.matrix_step`)."""

    matrix_HK: Tensor

    def make(self) -> None:
        """Change the matrix."""

    def make_and_multiply(self, vector_K: Tensor) -> Tensor:
        """Change it; returns the product of the new matrix and `vector_K` [H]."""


_put_off: dict[int, Step] = {}


def put_off(matrix: Tensor, step: Step) -> None:
    """Make the step in the next `product` of the matrix, whose memory it reads anyway."""
    _put_off[matrix.data_ptr()] = step


def taken(matrix: Tensor) -> Step | None:
    """What was put off for the matrix; the caller makes it."""
    return _put_off.pop(matrix.data_ptr(), None)


def product(row_1K: Tensor, matrix_HK: Tensor) -> Tensor:
    """`x Wᵀ` [1, H], without a gradient."""
    if (step := taken(matrix_HK)) is not None:
        if step.matrix_HK.shape == matrix_HK.shape and native.suits(row_1K):
            return step.make_and_multiply(row_1K)[None]
        step.make()
    if native.suits(row_1K, matrix_HK):
        return matrix_vector(matrix_HK, row_1K)[None]
    return row_1K @ matrix_HK.T


def product_backward(grad_1H: Tensor, matrix_HK: Tensor) -> Tensor:
    """`g W` [1, K]: what a gradient of `x Wᵀ` is for x."""
    if native.suits(grad_1H, matrix_HK):
        return vector_matrix(grad_1H, matrix_HK)[None]
    return grad_1H @ matrix_HK


def linear(rows: Tensor, layer: nn.Linear) -> Tensor:
    """`layer(rows)`; a single row [1, K] takes part in `collect`."""
    if rows.shape[:-1] != (1,):
        return layer(rows)
    out: Tensor = _OneRowLinear.apply(rows, layer.weight, layer.bias)
    return out


class _OneRowLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, row_1K: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(row_1K)
        ctx.weight = weight
        return product(row_1K, weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_1H: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (row_1K,) = ctx.saved_tensors
        grad_row = product_backward(grad_1H, ctx.weight) if ctx.needs_input_grad[0] else None
        apart = keep_apart(ctx.weight, grad_1H[0], row_1K[0])
        grad_weight = None if apart else torch.outer(grad_1H[0], row_1K[0])
        # A tensor of its own: clipping changes it in place.
        return grad_row, grad_weight, grad_1H[0].clone()
