"""A matrix looked at a part at a time, as float64: of one that is mapped, little is in memory."""

from collections.abc import Iterator

from torch import Tensor

# 32 MiB of float64 at a time, whatever the matrix.
CHUNK_ELEMENTS = 4 * 2**20


def chunks(matrix_ND: Tensor, dim: int = 0) -> Iterator[Tensor]:
    """Yield a matrix [N, D] from top to bottom, or from left to right (`dim` 1), as float64.

    `ValueError` if it is no matrix, or empty.
    """
    if matrix_ND.ndim != 2 or not matrix_ND.numel():
        raise ValueError(f"expected a matrix [N, D], got shape {list(matrix_ND.shape)}")
    step = max(1, CHUNK_ELEMENTS // matrix_ND.shape[1 - dim])
    for chunk in matrix_ND.detach().split(step, dim):
        yield chunk.double()
