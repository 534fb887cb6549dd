"""Matrix products in bfloat16, and contexts in float32."""

from pathlib import Path

import pytest
import torch
from recurrence import SHAPES
from torch.nn import functional as F

from newllm_core.config import ModelConfig, RunConfig
from newllm_core.errors import ConfigError
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import (
    available_devices,
    prepare_device,
    steps_between_checks,
    to_device,
)
from newllm_core.runtime.precision import products_in, uses_bfloat16
from newllm_core.trajectory.sequential import rollout, unroll

CPU = torch.device("cpu")


def model_and_tokens(*, options=None, cell="residual", **_):
    shape = {"context_dim": 48, "embed_dim": 32, "layer_structure": (2, 1)}
    model = LanguageModel(ModelConfig(cell=cell, **shape), 61, cell=options, seed=3)
    return model, torch.randint(0, 61, (5, 23), generator=torch.Generator().manual_seed(1))


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def losses_and_gradients(precision, **shape):
    model, tokens = model_and_tokens(**shape)
    incoming = torch.randn(63, 48, generator=torch.Generator().manual_seed(2))
    with products_in(model, RunConfig(precision=precision), CPU):
        contexts = model.step(context=incoming, token=model.embed(tokens.flatten()[:63]))
        loss = F.mse_loss(contexts[-1], incoming)
        gradients = torch.autograd.grad(loss, list(model.blocks.parameters()), allow_unused=True)
    return contexts, loss, gradients


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_bfloat16_stays_near_float32_and_its_results_are_float32(shape):
    exact, exact_loss, exact_gradients = losses_and_gradients("float32", **shape)
    contexts, loss, gradients = losses_and_gradients("bfloat16", **shape)
    assert all(c.dtype == torch.float32 for c in contexts)
    assert 0 < relative(contexts[-1], exact[-1]) < 0.02
    assert loss.item() == pytest.approx(exact_loss.item(), rel=0.02)
    for found, wanted in zip(gradients, exact_gradients, strict=True):
        if wanted is not None and wanted.norm() > 0:
            assert found.dtype == torch.float32
            assert relative(found, wanted) < 0.1


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_bfloat16_follows_weights_that_a_fused_optimizer_changed(optimizer):
    model, tokens = model_and_tokens()
    change = optimizer(model.blocks.parameters(), lr=0.05, fused=True)
    with products_in(model, RunConfig(precision="bfloat16"), CPU):
        before = rollout(model, tokens, model.start(5))
        unroll(model, tokens, model.start(5))[-1].square().sum().backward()
        change.step()
        after = rollout(model, tokens, model.start(5))
    exact = rollout(model, tokens, model.start(5))
    assert relative(before, exact) > 0.2
    assert relative(after, exact) < 0.05


def test_a_single_row_is_read_at_full_precision():
    model, tokens = model_and_tokens()
    token = model.embed(tokens[0, :2])
    context = torch.randn(2, 48, generator=torch.Generator().manual_seed(2))
    exact, of_one = (model.step(context=context[:n], token=token[:n])[-1] for n in (2, 1))
    with products_in(model, RunConfig(precision="bfloat16"), CPU):
        assert torch.equal(model.step(context=context[:1], token=token[:1])[-1], of_one)
        assert not torch.equal(model.step(context=context, token=token)[-1], exact)


def test_precision_is_as_before_afterwards():
    model, _ = model_and_tokens()
    with products_in(model, RunConfig(precision="bfloat16"), CPU):
        assert model.product_dtype == torch.bfloat16
    assert model.product_dtype is None
    assert not uses_bfloat16(RunConfig(precision="float32"), CPU)


@pytest.mark.parametrize(
    ("flags", "dims", "narrow"),
    [
        ("fpu avx512f avx512_bf16", 192, True),
        ("fpu amx_bf16 amx_tile", 192, True),
        ("fpu avx512f avx512_bf16", 191, False),
        ("fpu avx2 avx512_bf16_not", 256, False),
    ],
)
def test_auto_takes_bfloat16_where_it_is_faster(monkeypatch, flags, dims, narrow):
    model = LanguageModel(ModelConfig(context_dim=dims, embed_dim=16), 61)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags\t\t: {flags}\nbugs\t:")
    with products_in(model, RunConfig(), CPU):
        assert model.product_dtype == (torch.bfloat16 if narrow else None)


@pytest.mark.parametrize(
    ("device", "generation", "narrow"),
    [("cuda", (8, 0), True), ("cuda", (9, 0), True), ("cuda", (7, 5), False), ("mps", None, False)],
)
def test_a_gpu_takes_bfloat16_from_ampere_on_at_any_width(monkeypatch, device, generation, narrow):
    model = LanguageModel(ModelConfig(context_dim=16, embed_dim=16), 61)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: generation)
    with products_in(model, RunConfig(), torch.device(device)):
        assert model.product_dtype == (torch.bfloat16 if narrow else None)


def test_tf32_is_a_choice_that_ends_with_the_block():
    model, _ = model_and_tokens()
    rounding = torch.backends.cuda.matmul
    assert not rounding.allow_tf32
    with products_in(model, RunConfig(tf32=True), CPU):
        assert rounding.allow_tf32
        with products_in(model, RunConfig(), CPU):
            assert not rounding.allow_tf32
        assert rounding.allow_tf32
    assert not rounding.allow_tf32


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(name):
    if name in available_devices():
        assert prepare_device(RunConfig(device=name)).type == name
        return
    with pytest.raises(ConfigError, match=f"--device {name}: torch finds no .* use --device cpu"):
        prepare_device(RunConfig(device=name))


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"process 2 .* there are 1: .* --nproc-per-node 1"):
        prepare_device(RunConfig(device="cuda"))


def test_a_processor_checks_every_step_and_others_from_time_to_time():
    found = [steps_between_checks(RunConfig(), torch.device(name)) for name in ("cpu", "cuda")]
    assert found == [1, 50]
    asked = RunConfig(check_interval_steps=7)
    assert {steps_between_checks(asked, torch.device(name)) for name in ("cpu", "mps")} == {7}


def test_values_arrive_on_the_device_as_they_were(device):
    values = torch.arange(12).view(3, 4)[:, 1:]
    arrived = to_device(values, device)
    assert arrived.device.type == device.type
    assert arrived.tolist() == values.tolist()
