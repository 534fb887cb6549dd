import itertools

import numpy as np
import pytest
import torch

from newllm_core.analysis.rank import token_loadings
from newllm_core.analysis.sections import (
    distribution,
    live_dimensions,
    moments,
    norm_summary,
    pairwise,
    sample_pairs,
)
from newllm_core.analysis.summary import cosine, identity_cosine, summary


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_summary_is_numpys(count):
    values = gaussian(count)
    numbers = values.double().numpy()
    expected = {
        name: getattr(np, name)(numbers) for name in ("mean", "median", "std", "min", "max")
    }
    assert summary(values) == pytest.approx(expected)


def test_norms_of_known_rows():
    norms = norm_summary(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]))
    assert norms == pytest.approx(
        {"mean": 2, "median": 1, "std": 4.666667**0.5, "min": 0, "max": 5}
    )


def test_cosine_of_vectors_without_direction():
    zero, one = torch.zeros(3), torch.tensor([0.0, 2.0, 0.0])
    assert cosine(zero, zero) == 1
    assert cosine(zero, one) == 0
    assert cosine(one, -3 * one) == -1


def test_cosine_of_vectors_too_short_for_float32():
    tiny = torch.tensor([1e-30, 1e-30])
    assert float(cosine(tiny, torch.tensor([1.0, 0.0]))) == pytest.approx(0.5**0.5)


def exact_pairs(matrix):
    rows = matrix.double().numpy()
    pairs = list(itertools.combinations(rows, 2))
    l2 = [np.linalg.norm(a - b) for a, b in pairs]
    cos = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    return np.array(l2), np.array(cos)


@pytest.mark.parametrize("seed", range(5))
def test_sampled_pairs_cover_the_exact_mean(seed):
    matrix = gaussian(150, 6, seed=seed) + 0.5
    for sampled, exact in zip(
        pairwise(matrix, num_pairs=2000, seed=seed)[:2], exact_pairs(matrix), strict=True
    ):
        assert sampled["num_pairs"] == 2000
        assert sampled["stderr"] == pytest.approx(exact.std() / 2000**0.5, rel=0.1)
        assert abs(sampled["mean"] - exact.mean()) < 4 * sampled["stderr"]
        assert exact.min() - 1e-9 <= sampled["min"] <= sampled["max"] <= exact.max() + 1e-9


def test_few_rows_are_compared_exactly():
    matrix = gaussian(20, 6)
    for found, exact in zip(
        pairwise(matrix, num_pairs=190, seed=0)[:2], exact_pairs(matrix), strict=True
    ):
        assert found["mean"] == pytest.approx(exact.mean())
        assert found["median"] == pytest.approx(np.median(exact))
        assert (found["stderr"], found["num_pairs"]) == (0, 190)


def test_pairs_are_of_two_different_rows_and_seeded():
    left, right = sample_pairs(5, 9, seed=1)
    assert (left != right).all()
    left, right = sample_pairs(1000, 5000, seed=1)
    assert (left != right).all()
    assert int(right.max()) < 1000
    assert torch.equal(sample_pairs(1000, 5000, seed=1)[0], left)
    assert not torch.equal(sample_pairs(1000, 5000, seed=2)[0], left)


@pytest.mark.parametrize("offset", [0, 1e6])
def test_moments_are_numpys_whatever_the_chunks(offset, monkeypatch):
    monkeypatch.setattr("newllm_core.analysis.chunks.CHUNK_ELEMENTS", 40)
    matrix = gaussian(101, 7).double() * torch.arange(1, 8) + offset
    mean, variance = moments(matrix)
    np.testing.assert_allclose(mean, matrix.numpy().mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance, matrix.numpy().var(0), rtol=1e-9)


def test_sparsity_counts_what_is_nearly_zero():
    matrix = torch.zeros(10, 10)
    matrix[:, :3] = 1.0
    matrix[0, 5] = 0.001
    assert distribution(matrix)["sparsity"] == pytest.approx(0.7)
    assert distribution(matrix * 1e-20)["sparsity"] == pytest.approx(0.7)
    assert distribution(torch.zeros(4, 4))["sparsity"] == 1
    # P(|z| < 0.01) of a standard normal.
    assert distribution(gaussian(1000, 50))["sparsity"] == pytest.approx(0.00798, rel=0.1)


def test_live_dimensions():
    assert live_dimensions([0, 0, 0, 0], [1, 1, 1e-4, 0]) == 0.5
    assert live_dimensions([10, -10], [0.5, 0.5]) == 0
    assert live_dimensions([0, 0], [1, 0.0075]) == 1  # a hundredth of the mean, not of the largest
    assert live_dimensions([0, 0], [0, 0]) == 0


def mean_step_cosine(trajectory):
    return identity_cosine(trajectory)["mean"]


def test_identity_of_hand_made_trajectories():
    still = torch.ones(2, 5, 3)
    assert mean_step_cosine(still) == pytest.approx(1)
    flipping = still * torch.tensor([1.0, -1, 1, -1, 1])[None, :, None]
    assert mean_step_cosine(flipping) == pytest.approx(-1)
    angle = torch.arange(7) * 0.3
    turning = torch.stack([angle.cos(), angle.sin()], dim=1)[None]
    assert mean_step_cosine(turning) == pytest.approx(np.cos(0.3))
    # The end of one passage and the beginning of the next are no neighbours.
    assert mean_step_cosine(torch.stack([still[0], -still[0]])) == pytest.approx(1)
    # Half of the steps turn by a right angle, half by none.
    corners = torch.tensor([[1.0, 0], [0, 1], [0, 1]])[None]
    assert identity_cosine(corners) == pytest.approx({"mean": 0.5, "std": 0.5})


def test_tokens_that_load_on_a_direction_are_found():
    directions = torch.eye(3)
    tokens = torch.tensor([7, 7, 7, 2, 2, 2, 4, 4, 4, 9])
    strengths = torch.tensor([5.0, -5, 5, 1, 1, 1, 2, 2, 2, 50])
    contexts = strengths[:, None] * directions[0]
    found = token_loadings(contexts, directions[:, :1].double(), tokens, num_tokens=2)
    # Token 9 was seen once only; signs do not cancel.
    assert found == [[(7, pytest.approx(5)), (4, pytest.approx(2))]]
    alone = token_loadings(contexts[:1], directions[:, :1].double(), tokens[:1], num_tokens=2)
    assert alone == [[(7, pytest.approx(5))]]
