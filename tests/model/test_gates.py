"""Gates in C and in torch, each against the formulas in float64 with autograd."""

import pytest
import torch

from newllm_core import native
from newllm_core.model.gates import operations

B, C = 7, 37
WIDTH = {torch.float64: 0.0, torch.float32: 2e-6, torch.bfloat16: 2**-8}


@pytest.fixture(params=["compiled", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the loops in C were not compiled when newllm was installed")
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


def draw(generator, *shape, dtype=torch.float32, scale=1.0):
    return torch.randn(*shape, generator=generator).mul_(scale).to(dtype)


def is_close(found, wanted, dtype=torch.float32):
    return torch.allclose(found.double(), wanted, rtol=WIDTH[dtype], atol=2e-6)


def test_the_way_is_chosen_by_what_there_is(way, dtype):
    chosen = operations(dtype, torch.zeros(1))
    assert chosen.__name__ == f"_{way.capitalize()}"
    assert operations(torch.float64, torch.zeros(1).double()).__name__ == "_Plain"


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_gate_and_its_gradients(way, dtype, generator, scale):
    sums, value = draw(generator, B, C, dtype=dtype, scale=scale), draw(generator, B, C)
    grad = draw(generator, B, C)
    exact_sums, exact_value = (t.double().requires_grad_() for t in (sums, value))
    wanted = 2 * exact_sums.sigmoid() * exact_value
    wanted_sums, wanted_value = torch.autograd.grad(
        wanted, (exact_sums, exact_value), grad.double()
    )

    do = operations(dtype, value)
    gate, gated = torch.empty(B, C), torch.empty(B, C)
    narrow, of_sums = torch.empty(B, C, dtype=dtype), torch.empty(B, C, dtype=dtype)
    do.gate(sums, value, gate, gated, narrow)
    do.gate_backward(grad, gate, gated, of_sums)
    assert is_close(gate, exact_sums.detach().sigmoid())
    assert is_close(gated, wanted.detach())
    assert is_close(narrow, wanted.detach(), dtype)
    assert is_close(of_sums, wanted_sums, dtype)
    assert is_close(grad, wanted_value)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_cell_and_its_gradients(way, dtype, generator, scale):
    of_context = draw(generator, B, 3 * C, dtype=dtype, scale=scale)
    of_token = draw(generator, B, 3 * C, dtype=dtype, scale=scale)
    context, grad, carried = (draw(generator, B, C) for _ in range(3))
    exact = [t.double().requires_grad_() for t in (of_context, of_token, context)]
    k_c, r_c, h_c = exact[0].chunk(3, dim=1)
    k_x, r_x, h_x = exact[1].chunk(3, dim=1)
    keep, reset = (k_c + k_x).sigmoid(), (r_c + r_x).sigmoid()
    candidate = (h_x + reset * h_c).tanh()
    wanted = keep * exact[2] + (1 - keep) * candidate
    gradients = torch.autograd.grad(wanted, exact, (grad + carried).double())

    do = operations(dtype, context)
    keep_reset, h, updated = torch.empty(B, 2 * C), torch.empty(B, C), torch.empty(B, C)
    narrow = torch.empty(B, C, dtype=dtype)
    do.cell(of_context, of_token, context, keep_reset, h, updated, narrow)
    # Sums of two numbers in bfloat16 are rounded by neither way.
    assert is_close(keep_reset, torch.cat([keep, reset], dim=1).detach())
    assert is_close(h, candidate.detach())
    assert is_close(updated, wanted.detach())
    assert is_close(narrow, wanted.detach(), dtype)
    to_context, to_token = torch.empty_like(of_context), torch.empty_like(of_token)
    do.cell_backward(grad, carried, of_context, context, keep_reset, h, to_context, to_token)
    assert is_close(to_context, gradients[0], dtype)
    assert is_close(to_token, gradients[1], dtype)
    assert is_close(carried, gradients[2])


def test_not_a_number_passes_through(way, dtype):
    nan = torch.full((1, 3), float("nan"), dtype=dtype)
    do = operations(dtype, torch.zeros(1))
    gate, gated, narrow = torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3, dtype=dtype)
    do.gate(nan, torch.ones(1, 3), gate, gated, narrow)
    assert torch.cat([gate, gated, narrow]).isnan().all()
