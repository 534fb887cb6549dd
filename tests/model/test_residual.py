"""`norm(v + ReLU(u))` in C and in torch, each against the formula in float64 with autograd."""

import pytest
import torch
from torch.nn import functional as F

from newllm_core import native
from newllm_core.model import residual
from newllm_core.model.residual import Reached, Side

N = 23
# One side of 37 columns, another of 12: rows of neither are aligned.
WIDTHS = (37, 12)
UNIT = {torch.float32: 2e-6, torch.bfloat16: 2**-8}


@pytest.fixture(params=["compiled", "plain"])
def compiled(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the loops in C were not compiled when newllm was installed")
    return request.param == "compiled"


@pytest.fixture(params=[1, 3], ids=lambda count: f"{count} cores", autouse=True)
def divided(request, using_threads, monkeypatch):
    using_threads(request.param)
    monkeypatch.setattr(residual, "LEAST_NUMBERS", 1)


def draw(generator, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_values_and_every_gradient(compiled, dtype, wide, count, generator):
    widths = WIDTHS[:count]
    update = draw(generator, N, sum(widths), dtype=dtype)
    of_update = torch.full_like(update, float("nan"))
    parts = list(zip(update.split(widths, dim=1), of_update.split(widths, dim=1), strict=True))
    sides, reached, expected = [], [], []
    for index, (columns, (part, to)) in enumerate(zip(widths, parts, strict=True)):
        is_wide = wide and index == 0
        value = draw(generator, N, columns, dtype=dtype)
        gain, shift = draw(generator, columns), draw(generator, columns)
        grad = draw(generator, N, columns, dtype=torch.float32 if is_wide else dtype)
        exact = [t.double().requires_grad_() for t in (value, part, gain, shift)]
        out = F.layer_norm(exact[0] + exact[1].relu(), (columns,), *exact[2:], eps=1e-5)
        expected.append((out.detach(), *torch.autograd.grad(out, exact, grad.double())))
        sides.append(Side(value, part, gain, shift, is_wide))
        reached.append((grad, value, part, gain, to))
    results = residual.forward(sides)
    gradients = residual.backward(
        [
            Reached(grad, value, part, gain, result.mean, result.rstd, to)
            for (grad, value, part, gain, to), result in zip(reached, results, strict=True)
        ]
    )
    # In torch, sums are rounded to the dtype before they are normed, as they are to be kept.
    unit = UNIT[dtype] * (1 if compiled or dtype == torch.float32 else 8)
    close = {"rtol": unit, "atol": unit}
    sums = {"rtol": unit, "atol": N * unit}
    for side, result, found, (_, _, _, _, to), wanted in zip(
        sides, results, gradients, reached, expected, strict=True
    ):
        assert result.out.dtype == (torch.float32 if side.wide else dtype)
        assert found.value.dtype == dtype
        assert {found.gain.dtype, found.shift.dtype, found.bias.dtype} == {torch.float32}
        out, of_value, of_part, of_gain, of_shift = wanted
        torch.testing.assert_close(result.out.double(), out, **close)
        torch.testing.assert_close(found.value.double(), of_value, **close)
        torch.testing.assert_close(to.double(), of_part, **close)
        torch.testing.assert_close(found.gain.double(), of_gain, **sums)
        torch.testing.assert_close(found.shift.double(), of_shift, **sums)
        torch.testing.assert_close(found.bias.double(), of_part.sum(0), **sums)


def test_what_is_not_a_number_stays_visible(compiled):
    value, update = torch.zeros(2, 5), torch.zeros(2, 5)
    update[1, 2] = float("nan")
    (result,) = residual.forward([Side(value, update, torch.ones(5), torch.zeros(5), False)])
    assert result.out[0].isfinite().all()
    assert result.out[1].isnan().all()
