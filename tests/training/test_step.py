"""One optimizer step: the gradient's norm, its limit, and the rate."""

import math

import pytest
import torch
from torch import nn

from newllm_core.training.step import OptimizerStep


def parameters():
    return [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[5.0]]))]


def pull(given):
    """A loss whose gradient is (3, 4) and (12): of norm 13."""
    one, two = given
    return 3 * one[0] + 4 * one[1] + 12 * two.sum()


def moved(given):
    pairs = zip(given, parameters(), strict=True)
    return torch.cat([(before - after).detach().flatten() for after, before in pairs])


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize(
    ("clip", "scale"), [(0.0, 1.0), (13.1, 1.0), (100.0, 1.0), (6.5, 0.5), (1.3, 0.1), (0.13, 0.01)]
)
def test_a_gradient_is_scaled_to_the_largest_norm_and_zero_sets_no_limit(clip, scale, looks):
    given = parameters()
    step = OptimizerStep(torch.optim.SGD(given, lr=1.0, fused=True), clip)
    step.looks = looks
    norm = step.backward(pull(given))
    assert norm.item() == pytest.approx(13)
    step.apply(norm, rate=0.5)
    expected = [0.5 * scale * value for value in (3, 4, 12)]
    assert moved(given).tolist() == pytest.approx(expected, rel=1e-4)


def test_every_device_limits_a_gradient_and_refuses_one_that_is_not_finite(device):
    given = [nn.Parameter(p.detach().to(device)) for p in parameters()]
    step = OptimizerStep(torch.optim.SGD(given, lr=1.0, fused=True), clip=6.5)
    for factor in (1, math.inf):
        step.apply(step.backward(factor * pull(given)), rate=1.0)
        here = [parameter.detach().cpu() for parameter in given]
        assert moved(here).tolist() == pytest.approx([1.5, 2.0, 6.0], rel=1e-4)


def test_every_group_gets_the_rate_and_is_clipped_with_the_others():
    given = parameters()
    groups = [{"params": [p], "lr": 10.0 * number} for number, p in enumerate(given, start=1)]
    step = OptimizerStep(torch.optim.SGD(groups, fused=True), clip=1.3)
    step.apply(step.backward(pull(given)), rate=0.25)
    assert moved(given).tolist() == pytest.approx([0.075, 0.1, 0.3], rel=1e-4)
    assert [group["lr"] for group in step.optimizer.param_groups] == [0.25, 0.25]


def test_gradients_do_not_add_up_and_another_rate_follows():
    given = parameters()
    step = OptimizerStep(torch.optim.SGD(given, lr=1.0, fused=True), clip=0.0)
    for rate in (1.0, 0.5):
        norm = step.backward(pull(given))
        assert norm.item() == pytest.approx(13)
        step.apply(norm, rate)
    assert moved(given).tolist() == pytest.approx([4.5, 6.0, 18.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_the_norm(value):
    given = parameters()
    step = OptimizerStep(torch.optim.SGD(given, lr=1.0, fused=True), clip=1.0)
    norm = step.backward(value * pull(given))
    assert not torch.isfinite(norm)
    step.apply(norm, rate=1.0)
    assert not moved(given).any()


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_nothing_changes_from_the_first_figure_on_that_is_not_finite(bad, clip, dtype, looks):
    given = [nn.Parameter(p.detach().to(dtype)) for p in parameters()]
    step = OptimizerStep(torch.optim.Adam(given, fused=True), clip)
    step.looks = looks
    factors = {1: (1.0, math.inf), 3: (math.nan, 1.0)} if bad == "loss" else {1: (math.inf, 1.0)}
    kept = []
    for number in range(5):
        of_gradient, of_loss = factors.get(number, (1.0, 1.0))
        norm = step.backward(of_gradient * pull(given))
        step.apply(norm, 0.1, [torch.tensor(of_loss)])
        moments = [t for state in step.optimizer.state.values() for t in state.values()]
        kept.append(torch.cat([t.detach().flatten().double() for t in [*given, *moments]]))
    assert torch.equal(kept[0], kept[4])
    assert kept[0].isfinite().all()
    assert moved(given).abs().min() > 0.09


def test_a_loss_without_a_gradient_moves_nothing():
    given = parameters()
    step = OptimizerStep(torch.optim.SGD(given, lr=1.0, fused=True), clip=1.0)
    step.backward(pull(given))
    assert step.backward(torch.tensor(7.0)).item() == 0
    assert all(p.grad is None or not p.grad.any() for p in given)
