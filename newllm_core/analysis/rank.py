"""Information content: how many dimensions the contexts use, and what the strongest stand for.

Singular values come from the Gram matrix of the smaller side, summed in float64 over chunks of the
matrix, so memory does not grow with N. Squaring halves the digits: singular values below about
1e-8 of the largest one are noise.

Shapes: N contexts, D context_dim, S = min(N, D), K singular vectors, U token types.
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from newllm_core.analysis.chunks import chunks

QUADRATURE_POINTS = 20_000
# Enough to draw a spectrum of any width.
CURVE_POINTS = 256
# A token seen once or twice would win by chance.
LEAST_OCCURRENCES = 3


def spectrum(matrix_ND: Tensor, *, num_vectors: int = 0) -> tuple[Tensor, Tensor]:
    """Return singular values [S] of a matrix, descending, and right singular vectors [D, K].

    Those are the first K = `num_vectors`; both are float64.
    """
    # Scaled to a largest entry of 1, so that squares neither overflow nor vanish.
    scale = max(float(chunk.abs().max()) for chunk in chunks(matrix_ND)) or 1.0
    num_rows, num_columns = matrix_ND.shape
    tall = num_rows >= num_columns
    sides = chunks(matrix_ND) if tall else (chunk.T for chunk in chunks(matrix_ND, dim=1))
    gram = torch.as_tensor(sum((short := side / scale).T @ short for side in sides))
    if not num_vectors:
        values = torch.linalg.eigvalsh(gram)
        vectors = gram.new_zeros(num_columns, 0)
    else:
        values, basis = torch.linalg.eigh(gram)
        vectors = basis.flip(1)[:, :num_vectors]
        if not tall:
            sides = chunks(matrix_ND, dim=1)
            vectors = torch.cat([(chunk.T / scale) @ vectors for chunk in sides])
            vectors = vectors / vectors.norm(dim=0).clamp(min=1e-300)
    return values.clamp(min=0).sqrt().flip(0) * scale, vectors


def effective_rank(matrix_ND: Tensor) -> float:
    """Return effective rank of a matrix, uncentred: between 1 and min(N, D); 0 for zeros.

    The exponential of the entropy of `p = σ/Σσ` (Roy & Vetterli, EUSIPCO 2007).
    """
    return spectrum_rank(spectrum(matrix_ND)[0])


def spectrum_rank(singular_values_S: Tensor) -> float:
    """Return effective rank from singular values."""
    total = float(singular_values_S.sum())
    if total == 0:
        return 0.0
    p = singular_values_S.double() / total
    return math.exp(-float(torch.special.xlogy(p, p).sum()))


def actual_rank(singular_values_S: Tensor, shape: Sequence[int], dtype: torch.dtype) -> int:
    """Count singular values above numpy's `matrix_rank` tolerance `σ_1 max(N, D) eps` for `dtype`.

    It is never below what the Gram matrix resolves. Half precision is judged as float32: numpy's
    formula would call every long matrix empty.
    """
    largest = float(singular_values_S[0])
    halves = dtype.is_floating_point and dtype != torch.float64
    precision = torch.finfo(torch.float32 if halves else torch.float64).eps
    resolved = math.sqrt(min(shape) * torch.finfo(torch.float64).eps)
    tolerance = largest * max(max(shape) * precision, resolved)
    return int((singular_values_S > tolerance).sum())


@cache
def effective_rank_ceiling(num_rows: int, num_columns: int) -> float:
    """Return ER/D that N independent samples of a D-dimensional Gaussian reach.

    `E[s] exp(-E[s ln s] / E[s])`, `s` the square roots of Marchenko-Pastur eigenvalues; with fewer
    rows than dimensions those of the transpose, N of them.
    """
    eigenvalues, density = _marchenko_pastur(num_rows, num_columns)
    density = density / density.sum()
    s = eigenvalues.sqrt()
    mean = float((density * s).sum())
    ratio = mean * math.exp(-float((density * s * s.log()).sum()) / mean)
    return ratio * min(1.0, num_rows / num_columns)


def _marchenko_pastur(num_rows: int, num_columns: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues `λ = 1 + γ - 2 √γ cos θ` at midpoints of [0, π], and their density.

    There it is `2 sin²θ / (π λ)`, but for a factor: smooth enough for the midpoint rule.
    """
    gamma = min(num_rows, num_columns) / max(num_rows, num_columns)
    theta = (torch.arange(QUADRATURE_POINTS, dtype=torch.float64) + 0.5) / QUADRATURE_POINTS
    theta = theta * math.pi
    eigenvalues = 1 + gamma - 2 * math.sqrt(gamma) * theta.cos()
    return eigenvalues, theta.sin().square() / eigenvalues


def gaussian_singular_values(num_rows: int, num_columns: int) -> Tensor:
    """Return what the singular values [S] of N samples of a D-dimensional Gaussian tend to."""
    smaller, larger = sorted((num_rows, num_columns))
    eigenvalues, density = _marchenko_pastur(num_rows, num_columns)
    cumulative = density.cumsum(0) / density.sum()
    wanted = (torch.arange(smaller, dtype=torch.float64) + 0.5) / smaller
    found = eigenvalues[torch.searchsorted(cumulative, wanted).clamp(max=QUADRATURE_POINTS - 1)]
    return (found * larger).sqrt().flip(0)


def singular_spectrum(values_S: Tensor, shape: Sequence[int]) -> dict[str, list[float]]:
    """Return the spectrum as a curve, beside that of Gaussian samples of the same energy."""
    count = len(values_S)
    places = torch.linspace(0, count - 1, min(count, CURVE_POINTS)).round().long()
    gaussian_S = gaussian_singular_values(*shape)
    energy = values_S.double().square().sum() / gaussian_S.square().sum()
    return {
        "index": (places + 1).tolist(),
        "singular_values": values_S.cpu()[places].tolist(),
        "gaussian": (gaussian_S[places] * energy.sqrt().cpu()).tolist(),
    }


def information_content(values_S: Tensor, matrix_ND: Tensor, *, num_top: int) -> dict[str, object]:
    """Return every figure of this section from the singular values of a matrix."""
    rank, shape = spectrum_rank(values_S), matrix_ND.shape
    ratio = rank / shape[1]
    return {
        "effective_rank": rank,
        "effective_rank_ratio": ratio,
        "effective_rank_ceiling_ratio": ratio / effective_rank_ceiling(*shape),
        "actual_rank": actual_rank(values_S, shape, matrix_ND.dtype),
        "top_singular_values": values_S[:num_top].tolist(),
        "spectrum": singular_spectrum(values_S, shape),
    }


def projections(matrix_ND: Tensor, vectors_DK: Tensor) -> Tensor:
    """Return |projection| of every row of a matrix on every vector [N, K]."""
    return torch.cat([(chunk @ vectors_DK).abs() for chunk in chunks(matrix_ND)])


def token_loadings(
    matrix_ND: Tensor, vectors_DK: Tensor, tokens_N: Tensor, *, num_tokens: int
) -> list[list[tuple[int, float]]]:
    """Return ids and loadings of the `num_tokens` that load most on each right singular vector.

    A loading is the mean |projection| of the contexts, rows of the matrix, that have just read a
    token. Tokens seen fewer than three times are left out, if others are there.
    """
    projected_NK = projections(matrix_ND, vectors_DK)
    tokens_N = tokens_N.to(projected_NK.device)
    types_U, index_N, counts_U = tokens_N.unique(return_inverse=True, return_counts=True)
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
