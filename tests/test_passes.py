"""`benchmarks.passes`: what is counted as a kernel, and how many bytes it moves."""

import pytest
import torch

from benchmarks.passes import Passes, counted, phase1_step, phase2_step
from newllm_core.kernels import cross_entropy

X, IDS = torch.ones(6, 4), torch.tensor([1, 0, 2])


@pytest.mark.parametrize(
    ("action", "kernels", "moved"),
    [
        (lambda: X + X, 1, 3 * 96),
        (lambda: X.clone().add_(X), 2, 2 * 96 + 3 * 96),
        (lambda: X.T[1:].view(3, 6), 0, 0),
        (lambda: X @ X.T, 1, 0),
        (lambda: X.to(torch.bfloat16), 1, 96 + 48),
        (lambda: torch.softmax(X, -1, out=torch.empty(6, 4)), 1, 2 * 96),
        (lambda: X[IDS], 1, 2 * 48),
        (lambda: torch._foreach_add_([X.clone(), X.clone()], [X, X]), 3, 4 * 96 + 6 * 96),
        (lambda: torch.empty(6, 4).index_put_((IDS,), X[:3]), 1, 2 * 48),
    ],
)
def test_an_operation_reads_what_it_is_given_and_writes_what_it_returns(action, kernels, moved):
    with Passes() as found:
        action()
    assert (found.kernels, found.moved) == (kernels, moved)


def test_products_are_told_apart_by_what_they_multiply():
    with Passes() as found, torch.autocast("cpu", torch.bfloat16):
        torch.nn.functional.linear(X, torch.ones(3, 4), torch.ones(3))
        with torch.autocast("cpu", enabled=False):
            torch.mm(X.T, X, out=torch.empty(4, 4))
            torch.bmm(X.view(2, 3, 4), X.view(2, 4, 3))
    product = 2 * 6 * 4
    assert found.flop == {torch.bfloat16: 3 * product, torch.float32: (4 + 3) * product}


def test_a_step_of_phase_1_makes_the_products_of_its_weights():
    few, many = (counted(phase1_step("cvfp-16", tokens)) for tokens in (64, 128))
    assert few["kernels"] == many["kernels"] < 400
    # Forward, and back to weights and contexts (of the first cell to weights alone), and the
    # regularizer's: all grow with the tokens.
    assert many["flop"] == 2 * few["flop"] > 0
    # The covariance and its gradient.
    assert many["float32"] == 2 * 2 * 128 * 16 * 16
    assert few["moved"] < many["moved"] < 2 * few["moved"]


def test_kernels_of_a_step_through_time_grow_with_its_length():
    short, long = (counted(phase2_step("cvfp-16", 4, length))["kernels"] for length in (4, 8))
    longer = counted(phase2_step("cvfp-16", 4, 12))["kernels"]
    assert long - short == longer - long > 0


def test_a_head_makes_as_many_logits_at_a_time_as_on_a_gpu(monkeypatch):
    monkeypatch.setitem(cross_entropy.LOGITS_AT_ONCE, "cpu", 1)
    few, many = (counted(phase2_step("cvfp-16", streams, 4))["kernels"] for streams in (2, 4))
    assert few == many
