"""VICReg against its formula in numpy."""

import numpy as np
import pytest
import torch
from newllm_sigreg.vicreg import VicReg, VicRegOptions

from newllm_core.testing import check_regularizer


def loss(contexts, **options):
    tokens = torch.zeros(len(contexts), dtype=torch.long)
    return VicReg(contexts.shape[1], VicRegOptions(**options))(contexts, tokens_N=tokens)


def batch(n=63, d=17):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 2, d)


@pytest.mark.parametrize("options", [{}, {"variance_weight": 0.0}, {"target": 3.0}])
def test_contract(options):
    check_regularizer(VicReg, VicRegOptions(**options))


def test_value_is_the_formula():
    contexts = batch()
    covariance = np.cov(contexts.numpy().T)
    variance = np.mean(np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)))
    off_diagonal = covariance[~np.eye(17, dtype=bool)]
    expected = 25 * variance + np.sum(off_diagonal**2) / 17
    assert loss(contexts).item() == pytest.approx(expected)


def test_collapsed_contexts_cost_the_whole_hinge():
    assert loss(torch.ones(10, 4)).item() == pytest.approx(25 * (1 - 0.01))


def test_spread_uncorrelated_contexts_cost_nothing():
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert loss(corners).item() == 0


def test_gradient_is_the_derivative_of_the_value():
    assert torch.autograd.gradcheck(loss, batch(7, 5).requires_grad_())
