"""Matrices whose products are made in bfloat16: gradients and copies that stay in it.

A product gives the gradient of a matrix in bfloat16; the optimizer can read it as it is, and write
the copy that the next product reads, in the one pass over weights and moments that it makes anyway.
Inside `collect` gradients are handed over, and `grad` of their matrices stays empty; copies count
until they are dropped, and only the optimizer may change the weights meanwhile.

Shapes: H outputs, K inputs of a matrix.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class NarrowGradient(NamedTuple):
    """Of the first rows of a matrix, as many as there are; 0 below."""

    matrix_HK: Tensor
    gradient: Tensor


_collected: list[NarrowGradient] | None = None
# By place in memory; the matrix as well, so that nothing else comes to lie there.
_copies: dict[int, tuple[Tensor, Tensor]] = {}


@contextmanager
def collect() -> Iterator[list[NarrowGradient]]:
    """Inside, a backward pass fills the list; each matrix may be used once."""
    global _collected
    found: list[NarrowGradient] = []
    _collected = found
    try:
        yield found
    finally:
        _collected = None


def keep_narrow(matrix_HK: Tensor, gradient: Tensor) -> bool:
    """Whether a gradient was handed over, so that it need not be widened."""
    if _collected is None or gradient.dtype != torch.bfloat16:
        return False
    _collected.append(NarrowGradient(matrix_HK, gradient))
    return True


def narrow_copy(matrix_HK: Tensor) -> Tensor:
    """The copy of a matrix that the optimizer keeps up to date from now on."""
    place = matrix_HK.data_ptr()
    if place not in _copies:
        _copies[place] = matrix_HK, matrix_HK.detach().to(torch.bfloat16)
    return _copies[place][1]


def drop_copies(matrices: Iterable[Tensor]) -> None:
    """From now on the weights may change in any way."""
    for matrix in matrices:
        _copies.pop(matrix.data_ptr(), None)


def as_read(matrix_HK: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix in the dtype of products."""
    if dtype == torch.bfloat16 and (kept := _copies.get(matrix_HK.data_ptr())) is not None:
        return kept[1]
    return matrix_HK.detach().to(dtype)
