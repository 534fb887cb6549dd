"""The loops in C against torch in float64, and that everything works without them."""

import math

import pytest
import torch
from torch.nn import functional as F

from newllm_core import native
from newllm_core.native.narrow import adam_narrow, sum_of_squares
from newllm_core.native.one_row import adam_outer, matrix_vector, vector_matrix
from newllm_core.native.softmax import softmax_gradient
from newllm_core.training.token_loss import _to_gradient

compiled = pytest.mark.skipif(
    native.library() is None, reason="the loops in C were not compiled when newllm was installed"
)
# Rows that are no multiple of any vector length, and ones that are.
SHAPES = [(1, 1), (3, 17), (5, 64), (40, 1000)]


def expected_gradient(logits, targets):
    wide = logits.double().requires_grad_()
    nats = F.cross_entropy(wide, targets, reduction="sum")
    nats.backward()
    return nats.item(), wide.grad


@compiled
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.1, 5.0, 60.0])
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-24), (torch.bfloat16, 2**-8)])
def test_softmax_gradient(generator, shape, spread, dtype, unit):
    logits = torch.randn(shape, generator=generator).mul_(spread).to(dtype)
    targets = torch.randint(shape[1], shape[:1], generator=generator)
    nats, gradient = expected_gradient(logits, targets)
    assert softmax_gradient(logits, targets) == pytest.approx(nats, rel=1e-6, abs=1e-6)
    # Rounded once to the dtype, after float32 arithmetic.
    torch.testing.assert_close(logits.double(), gradient, rtol=unit + 1e-6, atol=1e-7)


@compiled
def test_a_shift_of_all_logits_changes_nothing(generator):
    logits = torch.randn(4, 100, generator=generator).round(decimals=2)
    targets = torch.arange(4)
    shifted = logits + 4096
    nats, _ = expected_gradient(shifted, targets)
    assert softmax_gradient(shifted, targets) == pytest.approx(nats, rel=1e-6)


@compiled
def test_losses_of_vanished_probabilities_are_exact():
    logits = torch.tensor([[0.0, 1000.0, -3e4], [0.0, -200.0, 50.0]])
    assert softmax_gradient(logits, torch.tensor([2, 1])) == pytest.approx(31250.0)
    assert logits.flatten().tolist() == pytest.approx([0, 1, -1, 0, -1, 1], abs=1e-20)


@compiled
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_visible(bad):
    logits = torch.zeros(2, 40)
    logits[1, 7] = bad
    assert math.isnan(softmax_gradient(logits, torch.tensor([0, 0])))


@compiled
@pytest.mark.parametrize("target", [-1, 5])
def test_a_target_outside_is_refused(target):
    with pytest.raises(IndexError, match="5 columns"):
        softmax_gradient(torch.zeros(2, 5), torch.tensor([0, target]))


@compiled
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_a_vector(generator, shape):
    matrix = torch.randn(shape, generator=generator)
    left, right = (torch.randn(n, generator=generator) for n in shape)
    tolerance = {"rtol": 1e-5, "atol": 1e-6 * shape[1]}
    found = matrix_vector(matrix, right).double()
    torch.testing.assert_close(found, matrix.double() @ right.double(), **tolerance)
    found = vector_matrix(left, matrix).double()
    torch.testing.assert_close(found, left.double() @ matrix.double(), **tolerance)


@compiled
@pytest.mark.parametrize("shape", SHAPES)
def test_adam_of_outer_products_is_adam(generator, shape):
    matrix = torch.randn(shape, generator=generator)
    mean, square = torch.zeros(shape), torch.zeros(shape)
    wanted = matrix.double().requires_grad_()
    adam = torch.optim.Adam([wanted], lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    for step in range(1, 6):
        left, right, vector = (
            torch.randn(n, generator=generator) for n in (shape[0], shape[1], shape[1])
        )
        wanted.grad = torch.outer(left, right).double()
        adam.step()
        product = adam_outer(
            matrix,
            mean,
            square,
            left,
            right,
            vector,
            step=step,
            rate=0.01,
            betas=(0.8, 0.95),
            eps=1e-6,
        )
        torch.testing.assert_close(matrix.double(), wanted.detach(), rtol=1e-6, atol=1e-6)
        expected = wanted.detach() @ vector.double()
        torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-6 * shape[1])
    state = adam.state[wanted]
    torch.testing.assert_close(mean.double(), state["exp_avg"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(square.double(), state["exp_avg_sq"], rtol=1e-5, atol=1e-9)


@compiled
@pytest.mark.parametrize("shape", SHAPES)
def test_adam_of_gradients_in_bfloat16_is_adam(generator, shape):
    matrix = torch.randn(shape, generator=generator)
    mean, square = torch.zeros(shape), torch.zeros(shape)
    copy = torch.empty(shape, dtype=torch.bfloat16)
    wanted = matrix.double().requires_grad_()
    adam = torch.optim.Adam([wanted], lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    for step in range(1, 6):
        gradient = torch.randn(shape, generator=generator).bfloat16()
        wanted.grad = 0.3 * gradient.double()
        adam.step()
        adam_narrow(
            matrix,
            mean,
            square,
            gradient,
            copy,
            scale=0.3,
            step=step,
            rate=0.01,
            betas=(0.8, 0.95),
            eps=1e-6,
        )
        torch.testing.assert_close(matrix.double(), wanted.detach(), rtol=1e-6, atol=1e-6)
        assert torch.equal(copy, matrix.bfloat16())
    state = adam.state[wanted]
    torch.testing.assert_close(mean.double(), state["exp_avg"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(square.double(), state["exp_avg_sq"], rtol=1e-5, atol=1e-9)


@compiled
@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 10_000])
def test_sums_of_squares(generator, count):
    values = torch.randn(count, generator=generator).bfloat16()
    assert sum_of_squares(values) == pytest.approx(float(values.double().square().sum()), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_them_the_same_gradient_is_made(monkeypatch, generator, dtype):
    logits = torch.randn(60, 300, generator=generator).mul_(4).to(dtype)
    targets = torch.randint(300, (60,), generator=generator)
    nats, gradient = expected_gradient(logits, targets)
    monkeypatch.setattr(native, "library", lambda: None)
    assert not native.suits(logits, dtypes=native.DTYPES)
    assert _to_gradient(logits, targets).item() == pytest.approx(nats, rel=1e-6)
    torch.testing.assert_close(logits.double(), gradient, rtol=2**-8, atol=1e-6)


def test_only_what_they_can_read_suits(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: object())
    matrix = torch.zeros(4, 6)
    assert native.suits(matrix, matrix[1:3])
    assert not native.suits(matrix[:, 1:])
    assert not native.suits(matrix, matrix.double())
    assert not native.suits(matrix.bfloat16())
    assert not native.suits(matrix.to("meta"))


def test_a_library_of_another_newllm_or_machine_is_refused(monkeypatch, tmp_path):
    foreign = tmp_path / "kernels.so"
    foreign.write_bytes(b"\x7fELF of another machine")
    for origin in ("libm.so.6", str(foreign)):
        spec = type("Spec", (), {"origin": origin})
        monkeypatch.setattr(native, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(ImportError, match="of another newllm or machine: install newllm again"):
            native.library.__wrapped__()
