"""Gradient norms of terms, and how far weights moved."""

import pytest
import torch
from torch import nn

from newllm_core.training.phase1.vacuity import VacuityGuard
from tests.second_device import Held


@pytest.fixture
def parameters():
    values = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]
    return [nn.Parameter(value) for value in values]


def test_gradient_norms_over_all_parameters(parameters):
    guard = VacuityGuard(parameters)
    one, two = parameters
    terms = {
        "both": 2 * one.sum() + 7 * two.sum(),
        "one": (one**2).sum() / 2,
        "zero": 0 * one.sum(),
        "constant": torch.tensor(5.0),
    }
    found = guard.gradient_norms(terms)
    expected = {"both": (4 + 4 + 49) ** 0.5, "one": 5.0, "zero": 0.0, "constant": 0.0}
    assert found == pytest.approx(expected)
    assert guard.vacuous_terms() == ["zero", "constant"]


def test_the_step_that_follows_still_has_its_graph(parameters):
    one = parameters[0]
    term = (one**2).sum()
    VacuityGuard(parameters).gradient_norms({"term": term})
    assert one.grad is None
    term.backward()
    assert one.grad.tolist() == [6.0, 8.0]


def test_a_term_that_pulled_once_is_not_vacuous(parameters):
    guard = VacuityGuard(parameters)
    one = parameters[0]
    for scale in (0.0, 1e-3, 0.0):
        norms = guard.gradient_norms({"term": scale * one.sum(), "dead": 0 * one.sum()})
    assert norms == {"term": 0.0, "dead": 0.0}
    assert guard.largest["term"] == pytest.approx(1e-3 * 2**0.5)
    assert guard.vacuous_terms() == ["dead"]


def test_rounding_is_no_gradient(parameters):
    guard = VacuityGuard(parameters)
    guard.gradient_norms({"noise": 1e-14 * parameters[0].sum()})
    assert guard.vacuous_terms() == ["noise"]


def test_weight_change_is_relative_to_the_initial_norm(parameters):
    guard = VacuityGuard(parameters)
    assert guard.weight_change(parameters) == 0.0
    with torch.no_grad():
        parameters[0].add_(torch.tensor([0.0, 1.2]))
        parameters[1].sub_(0.5)
    # The initial norm is that of (3, 4, 12), the distance that of (1.2, 0.5).
    assert guard.weight_change(parameters) == pytest.approx(1.3 / 13)
    with torch.no_grad():
        parameters[0].sub_(torch.tensor([0.0, 1.2]))
    assert guard.weight_change(parameters) == pytest.approx(0.5 / 13)
    # Those of an objective may move while the blocks do not.
    assert guard.weight_change(parameters[:1]) == pytest.approx(0, abs=1e-6)


def test_frozen_parameters_do_not_count(parameters):
    frozen = nn.Parameter(torch.full((4,), 100.0), requires_grad=False)
    guard = VacuityGuard([*parameters, frozen])
    with torch.no_grad():
        frozen.zero_()
        parameters[1].add_(13.0)
    assert guard.weight_change(parameters) == pytest.approx(1.0)
    assert guard.gradient_norms({"term": (frozen.sum() + 2 * parameters[1]).sum()}) == {"term": 2.0}


def test_norms_of_a_state_go_on_where_there_is_no_float64(second, monkeypatch):
    parameter = nn.Parameter(torch.tensor([3.0, 4.0]).to(second))
    guard = VacuityGuard([parameter])
    guard.largest = {"larger": 7.5, "smaller": 2.0}
    monkeypatch.setattr(Held, "refused", {torch.float64})
    guard.gradient_norms({name: parameter.square().sum() / 2 for name in guard.largest})
    assert guard.largest == {"larger": 7.5, "smaller": 5.0}
