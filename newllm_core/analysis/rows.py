"""A matrix read a few rows at a time, from memory or from a file, as float64.

Shapes: N rows, D columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# 32 MiB of float64 at a time, whatever the matrix.
CHUNK_ELEMENTS = 4 * 2**20


def nobody(count: int) -> None:
    """Hear about progress and do nothing."""


@dataclass(frozen=True)
class Rows:
    """A matrix [N, D] behind `source[rows, columns]` with two slices.

    `source` is a tensor, a slice of a safetensors file, or anything indexed alike, with entries of
    `dtype`; `on_read` is told how many rows have been read.
    """

    source: Any
    num_rows: int
    num_columns: int
    dtype: torch.dtype
    chunk_elements: int = CHUNK_ELEMENTS
    on_read: Callable[[int], None] = nobody

    @classmethod
    def of(cls, matrix: "Tensor | Rows") -> "Rows":
        """Return `matrix` itself, or a tensor seen as rows; `ValueError` if it is no [N, D]."""
        if isinstance(matrix, Rows):
            return matrix
        if matrix.ndim != 2 or not matrix.numel():
            raise ValueError(f"expected a matrix [N, D], got shape {list(matrix.shape)}")
        return cls(matrix.detach(), len(matrix), matrix.shape[1], matrix.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Return N and D."""
        return self.num_rows, self.num_columns

    def chunks(self) -> Iterator[Tensor]:
        """Yield the matrix from top to bottom, as float64 [n, D]."""
        for chunk in self._stored_chunks():
            yield chunk.double()

    def column_chunks(self) -> Iterator[Tensor]:
        """Yield the matrix from left to right, as float64 [N, d]."""
        step = max(1, self.chunk_elements // self.num_rows)
        for begin in range(0, self.num_columns, step):
            yield self.source[0 : self.num_rows, begin : begin + step].double()
        self.on_read(self.num_rows)

    def take(self, indices: Tensor) -> Tensor:
        """Return the rows at `indices` (ascending) in their stored type [len(indices), D]."""
        if isinstance(self.source, Tensor):
            return self.source[indices.to(self.source.device)]
        taken, begin = [], 0
        for chunk in self._stored_chunks():
            inside = indices[(indices >= begin) & (indices < begin + len(chunk))]
            taken.append(chunk[inside - begin])
            begin += len(chunk)
        return torch.cat(taken)

    def largest(self) -> float:
        """Return the largest magnitude of an entry."""
        return max(float(chunk.abs().max()) for chunk in self.chunks())

    def _stored_chunks(self) -> Iterator[Tensor]:
        step = max(1, self.chunk_elements // self.num_columns)
        for begin in range(0, self.num_rows, step):
            chunk = self.source[begin : begin + step, 0 : self.num_columns]
            yield chunk
            self.on_read(len(chunk))
