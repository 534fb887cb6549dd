"""Runs of Phase 1 whose numbers are not finite end with one line."""

import pytest
from small_phase1 import D, short, train

from newllm_core.errors import DivergedError
from newllm_core.regularizers.base import Regularizer


class BrokenFromCall(Regularizer):
    """Not finite from the n-th training call on; `pulls` says whether it has a gradient."""

    def __init__(self, first, *, pulls=True, value=float("nan")):
        super().__init__(D)
        self.first, self.pulls, self.value, self.calls = first, pulls, value, 0

    def loss(self, contexts_ND, *, tokens_N):
        self.calls += self.training
        broken = self.training and self.calls >= self.first
        contexts = contexts_ND if self.pulls else contexts_ND.detach()
        return contexts.square().mean() * (self.value if broken else 1.0)


@pytest.mark.parametrize("pulls", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", [1, 3])
def test_a_loss_that_is_not_finite_ends_the_run(pulls, value, call):
    """200 tokens are one batch: training call n is in iteration n + 1."""
    broken = BrokenFromCall(call, pulls=pulls, value=value)
    with pytest.raises(DivergedError) as caught:
        train(regularizers=[broken], dist_reg_weight=0.5, text=short(200))
    message = str(caught.value)
    assert "loss term regularizer is not finite" in message
    assert f"window 1, iteration {call + 1}," in message
    assert "\n" not in message
    assert caught.value.exit_code == 5


def test_the_iteration_of_a_later_window_is_counted_within_it():
    with pytest.raises(DivergedError, match="window 2, iteration 3,"):
        train(
            regularizers=[BrokenFromCall(6)],
            dist_reg_weight=0.5,
            text=short(200),
            window_tokens=100,
            later_iterations=3,
        )


class InfiniteGradient(Regularizer):
    def loss(self, contexts_ND, *, tokens_N):
        return (contexts_ND * 0).sum().sqrt()


def test_a_gradient_that_is_not_finite_ends_the_run():
    with pytest.raises(DivergedError, match="the gradient of regularizer is not finite"):
        train(regularizers=[InfiniteGradient(D)], dist_reg_weight=0.5)


def test_contexts_that_explode_while_reading_end_the_run():
    section = {"cell": {"layernorm_mix": 0}, "model": {"init_std": 1.0}}
    with pytest.raises(DivergedError, match=r"not finite \(window 1, iteration 1,"):
        train(section, engine="streams", num_streams=1)
