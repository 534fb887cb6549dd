"""SIGReg against its definition in numpy and against the values it is known by."""

import numpy as np
import pytest
import torch
from newllm_sigreg.sigreg import SigReg, SigRegOptions, epps_pulley

from newllm_core.testing import check_regularizer


def tokens(n):
    return torch.zeros(n, dtype=torch.long)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"num_directions": 3}, {"resample": False}])
def test_contract(options):
    check_regularizer(SigReg, SigRegOptions(**options))


def naive_statistic(u):
    """Trapezoidal rule over 33 knots on [-3, 3], before folding."""
    grid = np.linspace(-3, 3, 33)
    total = 0.0
    for t, share in zip(grid, [0.5, *[1.0] * 31, 0.5], strict=True):
        target = np.exp(-(t**2) / 2)
        empirical = np.mean(np.exp(1j * t * u))
        total += share * (6 / 32) * target * abs(empirical - target) ** 2
    return len(u) * total


def test_statistic_is_its_definition():
    projections = normal(63, 5) * 1.3 + 0.2
    expected = [naive_statistic(column) for column in projections.numpy().T]
    torch.testing.assert_close(epps_pulley(projections), torch.tensor(expected))


@pytest.mark.parametrize(("n", "d"), [(500, 16), (2048, 64)])
def test_value_at_the_normal_distribution(n, d):
    regularizer = SigReg(d, SigRegOptions(num_directions=64))
    losses = [regularizer(normal(n, d, s), tokens_N=tokens(n)).item() for s in range(20)]
    # Each loss is a mean over correlated directions; twenty of them leave an error near 0.03.
    assert np.mean(losses) == pytest.approx(1.05, abs=0.1)


@pytest.mark.parametrize("n", [1, 100, 2048])
def test_value_of_collapsed_contexts(n):
    loss = SigReg(16)(torch.zeros(n, 16), tokens_N=tokens(n)).item()
    assert loss / n == pytest.approx(0.402, abs=5e-4)


def test_directions_are_unit_vectors_and_new_at_every_training_call():
    regularizer = SigReg(16)
    first = regularizer.directions()
    torch.testing.assert_close(first.norm(dim=0), torch.ones(64))
    regularizer(normal(10, 16), tokens_N=tokens(10))
    assert not torch.equal(regularizer.directions(), first)
    fixed = SigReg(16, SigRegOptions(resample=False))
    fixed(normal(10, 16), tokens_N=tokens(10))
    assert torch.equal(fixed.directions(), first)


def test_gradient_is_the_derivative_of_the_value():
    regularizer = SigReg(5, SigRegOptions(num_directions=7)).eval()
    contexts = normal(9, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: regularizer(c, tokens_N=tokens(9)), contexts)


def test_it_spreads_contexts_on_a_line():
    contexts = normal(256, 16)[:, :1] * torch.ones(16) + 0.01 * normal(256, 16, 1)
    contexts.requires_grad_()
    regularizer = SigReg(16)
    optimizer = torch.optim.Adam([contexts], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        regularizer(contexts, tokens_N=tokens(256)).backward()
        optimizer.step()
    sigma = torch.linalg.svdvals(contexts.detach())
    p = sigma / sigma.sum()
    assert torch.special.entr(p).sum().exp() > 14
