from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from newllm_core.config import ModelConfig, RunConfig
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.precision import matrix_precision, uses_bfloat16
from newllm_core.trajectory.sequential import rollout, unroll

CPU = torch.device("cpu")
SHAPE = {"context_dim": 48, "embed_dim": 32, "layer_structure": (2, 1)}


def model_and_tokens(**shape):
    model = LanguageModel(ModelConfig(**SHAPE | shape), 61, seed=3)
    return model, torch.randint(0, 61, (5, 23), generator=torch.Generator().manual_seed(1))


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def losses_and_gradients(precision, **shape):
    model, tokens = model_and_tokens(**shape)
    incoming = torch.randn(63, 48, generator=torch.Generator().manual_seed(2))
    with matrix_precision(model, RunConfig(precision=precision), CPU):
        contexts = model.step(context=incoming, token=model.embed(tokens.flatten()[:63]))
        loss = F.mse_loss(contexts[-1], incoming)
        gradients = torch.autograd.grad(loss, list(model.blocks.parameters()), allow_unused=True)
    return contexts, loss, gradients


@pytest.mark.parametrize("shape", [{}, {"update": "mogrifier", "mogrifier_rounds": 2}])
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
    with matrix_precision(model, RunConfig(precision="bfloat16"), CPU):
        before = rollout(model, tokens, model.start(5))
        unroll(model, tokens, model.start(5))[-1].square().sum().backward()
        change.step()
        after = rollout(model, tokens, model.start(5))
    exact = rollout(model, tokens, model.start(5))
    assert relative(before, exact) > 0.2
    assert relative(after, exact) < 0.05


def test_precision_is_as_before_afterwards():
    model, _ = model_and_tokens()
    before = torch.get_float32_matmul_precision()
    with matrix_precision(model, RunConfig(precision="bfloat16"), CPU):
        assert model.compute_dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "medium"
    assert model.compute_dtype is None
    assert torch.get_float32_matmul_precision() == before
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
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags\t\t: {flags}\nbugs\t:")
    model = LanguageModel(ModelConfig(context_dim=dims, embed_dim=16, hidden_dim=dims + 16), 61)
    with matrix_precision(model, RunConfig(), CPU):
        assert model.compute_dtype == (torch.bfloat16 if narrow else None)
        assert torch.get_float32_matmul_precision() == ("medium" if narrow else "highest")


def test_updates_without_a_fused_form_keep_float32_between_products():
    model = LanguageModel(ModelConfig(update="gated", **SHAPE), 61)
    with matrix_precision(model, RunConfig(precision="bfloat16"), CPU):
        assert model.compute_dtype is None
