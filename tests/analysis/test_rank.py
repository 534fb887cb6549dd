import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from newllm_core.analysis.rank import (
    actual_rank,
    effective_rank,
    effective_rank_ceiling,
    gaussian_singular_values,
    information_content,
    singular_spectrum,
    spectrum,
    spectrum_rank,
)


def with_spectrum(values, num_rows, num_columns, seed=0):
    """A float64 matrix [N, D] with exactly these singular values."""
    generator = torch.Generator().manual_seed(seed)

    def basis(size):
        square = torch.randn(size, size, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(square)[0][:, : len(values)]

    return basis(num_rows) @ torch.diag(torch.tensor(values).double()) @ basis(num_columns).T


def rankme(matrix):
    """RankMe (Garrido et al., 2023) as published, through a full SVD."""
    sigma = torch.linalg.svd(matrix.double(), full_matrices=False).S
    p = sigma / sigma.sum() + 1e-7
    return float(torch.exp(-(p * torch.log(p)).sum()))


@pytest.mark.parametrize("shape", [(63, 20), (20, 20), (20, 63)])
def test_a_flat_spectrum_uses_every_dimension(shape):
    assert effective_rank(with_spectrum([3.0] * 20, *shape)) == pytest.approx(20, rel=1e-10)


@pytest.mark.parametrize("q", [0.9, 0.5])
def test_a_geometric_spectrum_has_its_closed_form(q):
    # p_i = q^i / A with A = Σ q^i, so H = ln A - ln q Σ i q^i / A.
    powers = [q**i for i in range(20)]
    total = sum(powers)
    entropy = math.log(total) - math.log(q) * sum(i * p for i, p in enumerate(powers)) / total
    matrix = with_spectrum(powers, 50, 30)
    assert effective_rank(matrix) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_three_directions_have_rank_three():
    matrix = with_spectrum([2.0, 2.0, 2.0], 400, 64).float()
    values = spectrum(matrix)[0]
    assert effective_rank(matrix) == pytest.approx(3, abs=1e-4)
    assert actual_rank(values, (400, 64), torch.float32) == 3
    assert np.linalg.matrix_rank(matrix.numpy()) == 3


def test_rank_is_uncentred():
    # A constant row is one direction; centring would leave nothing.
    assert effective_rank(torch.ones(30, 5)) == pytest.approx(1, abs=1e-5)


def test_nothing_has_rank_zero():
    zeros = torch.zeros(9, 4)
    assert effective_rank(zeros) == 0
    assert actual_rank(spectrum(zeros)[0], (9, 4), torch.float32) == 0


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    seed=st.integers(0, 99),
    exponent=st.sampled_from([-30, -3, 0, 30]),
)
def test_agrees_with_rankme_and_svd_at_any_shape_and_scale(rows, columns, seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator)
    scaled = matrix * 10.0**exponent
    rank = effective_rank(scaled)
    assert rank == pytest.approx(rankme(matrix), rel=1e-3)
    assert 1 - 1e-9 <= rank <= min(rows, columns) + 1e-9
    exact = torch.linalg.svdvals(scaled.double())
    torch.testing.assert_close(spectrum(scaled)[0], exact, rtol=1e-6, atol=float(exact[0]) * 1e-7)


@pytest.mark.parametrize("shape", [(200, 30), (30, 200)])
def test_chunks_change_nothing(shape, monkeypatch):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    values, vectors = spectrum(matrix, num_vectors=4)
    monkeypatch.setattr("newllm_core.analysis.chunks.CHUNK_ELEMENTS", 170)
    of_pieces, vectors_of_pieces = spectrum(matrix, num_vectors=4)
    torch.testing.assert_close(of_pieces, values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(vectors_of_pieces.abs(), vectors.abs(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(200, 30), (30, 200)])
def test_right_singular_vectors_are_those_of_the_svd(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(2)).double()
    vectors = spectrum(matrix, num_vectors=3)[1]
    assert vectors.shape == (shape[1], 3)
    exact = torch.linalg.svd(matrix, full_matrices=False).Vh[:3].T
    torch.testing.assert_close((vectors * exact).sum(0).abs(), torch.ones(3).double())


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.9, 0.75), (1, 0.81), (1.5, 0.90), (2, 0.92), (4, 0.97), (8, 0.98), (13, 0.99), (32, 0.996)],
)
def test_ceiling_is_what_gaussian_samples_were_measured_at(ratio, expected):
    assert effective_rank_ceiling(int(ratio * 1000), 1000) == pytest.approx(expected, abs=0.007)


@pytest.mark.parametrize("shape", [(60, 150), (150, 150), (600, 150)])
def test_gaussian_samples_reach_their_ceiling(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    figures = information_content(spectrum(matrix)[0], matrix, num_top=5)
    assert figures["effective_rank_ceiling_ratio"] == pytest.approx(1, abs=0.01)
    assert figures["effective_rank_ratio"] == figures["effective_rank"] / 150


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 7, 20])
def test_actual_rank_is_numpys(rank, dtype):
    generator = torch.Generator().manual_seed(rank)
    left = torch.randn(300, rank, generator=generator, dtype=dtype)
    matrix = left @ torch.randn(rank, 20, generator=generator, dtype=dtype)
    assert actual_rank(spectrum(matrix)[0], (300, 20), matrix.dtype) == rank
    assert np.linalg.matrix_rank(matrix.numpy()) == rank


def test_half_precision_has_a_rank_too():
    matrix = torch.randn(4000, 8, generator=torch.Generator().manual_seed(4)).bfloat16()
    assert actual_rank(spectrum(matrix)[0], (4000, 8), matrix.dtype) == 8


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_only_matrices_have_a_rank(shape):
    with pytest.raises(ValueError, match="expected a matrix"):
        effective_rank(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(800, 100), (300, 300), (100, 800)])
def test_the_gaussian_spectrum_is_that_of_samples_and_of_the_ceiling(shape):
    expected = gaussian_singular_values(*shape)
    assert spectrum_rank(expected) / shape[1] == pytest.approx(
        effective_rank_ceiling(*shape), rel=0.005
    )
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = torch.linalg.svdvals(matrix.double())
    assert float((found - expected).abs().max()) < 0.05 * float(found[0])


def test_a_spectrum_is_thinned_with_both_ends_and_its_energy():
    matrix = torch.randn(2000, 600, generator=torch.Generator().manual_seed(0))
    values = spectrum(matrix)[0]
    curve = singular_spectrum(values, matrix.shape)
    assert (curve["index"][0], curve["index"][-1], len(curve["index"])) == (1, 600, 256)
    assert curve["singular_values"][-1] == pytest.approx(float(values[-1]))
    # The matrix is Gaussian: both curves are the same.
    assert curve["gaussian"] == pytest.approx(curve["singular_values"], rel=0.05)
