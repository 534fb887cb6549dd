"""What the top singular vectors stand for: the tokens whose contexts load on them.

Shapes: N contexts, D context_dim, K singular vectors, U token types.
"""

import torch
from torch import Tensor

from newllm_core.analysis.rows import Rows

# A token seen once or twice would win by chance.
LEAST_OCCURRENCES = 3


def projections(matrix: Tensor | Rows, vectors_DK: Tensor) -> Tensor:
    """Return |projection| of every row of `matrix` [N, D] on every vector [N, K]."""
    return torch.cat([(chunk @ vectors_DK).abs() for chunk in Rows.of(matrix).chunks()])


def token_loadings(
    matrix: Tensor | Rows, vectors_DK: Tensor, tokens_N: Tensor, *, num_tokens: int
) -> list[list[tuple[int, float]]]:
    """Return the `num_tokens` that load most on each right singular vector.

    `tokens_N` is what the contexts, the rows of `matrix` [N, D], have just read.

    Returns:
        For each vector pairs of token id and loading (the mean |projection| of the contexts after
        that token), largest first. Tokens seen fewer than three times are left out, if others are
        there.
    """
    projected_NK = projections(matrix, vectors_DK)
    types_U, index_N, counts_U = torch.unique(
        tokens_N.to(projected_NK.device), return_inverse=True, return_counts=True
    )
    sums_UK = projected_NK.new_zeros(len(types_U), projected_NK.shape[1])
    loadings_UK = sums_UK.index_add(0, index_N, projected_NK) / counts_U[:, None]
    frequent = counts_U >= LEAST_OCCURRENCES
    if bool(frequent.any()):
        types_U, loadings_UK = types_U[frequent], loadings_UK[frequent]
    return largest(types_U, loadings_UK, num_tokens)


def largest(ids_U: Tensor, loadings_UK: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """Return for each of K columns the `count` largest loadings with their ids."""
    top = loadings_UK.topk(min(count, len(ids_U)), dim=0)
    return [
        list(zip(ids_U[indices].tolist(), values.tolist(), strict=True))
        for values, indices in zip(top.values.T, top.indices.T, strict=True)
    ]
