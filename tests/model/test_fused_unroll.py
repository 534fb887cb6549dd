"""Back-propagation through time by hand, against autograd through the plain update."""

import copy

import pytest
import torch

from newllm_core.config import ModelConfig
from newllm_core.model import by_core, mogrifier_unroll
from newllm_core.model.language_model import LanguageModel
from newllm_core.trajectory.sequential import unroll, unroll_embedded

B, T, V = 5, 7, 30


def make(structure, dtype=torch.float64, **shape):
    config = ModelConfig(
        context_dim=12,
        embed_dim=10,
        hidden_dim=22,
        layer_structure=structure,
        init_std=0.2,
        **shape,
    )
    model = LanguageModel(config, V).to(dtype)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def read(model, tokens, start, reads, *, by_hand):
    """Contexts, and gradients of the sum of `reads` times the contexts after some blocks."""
    model.zero_grad()
    start = start.clone().requires_grad_()
    if by_hand:
        contexts = unroll(model, tokens, start)
    else:
        with model.twice_differentiable():
            contexts = unroll(model, tokens, start)
    sum((contexts[block] * weight).sum() for block, weight in reads.items()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return contexts, gradients | {"start": start.grad}


@pytest.fixture(params=[1, 3], ids=lambda count: f"{count} cores", autouse=True)
def divided(request, using_threads, monkeypatch):
    """Streams read by one core, and in unequal parts by three."""
    using_threads(request.param)
    monkeypatch.setattr(by_core, "FEWEST_STREAMS", 1)


def test_every_core_reads_its_streams(divided, monkeypatch):
    sizes, inner = [], mogrifier_unroll.MogrifierUnroll.apply
    monkeypatch.setattr(
        mogrifier_unroll.MogrifierUnroll,
        "apply",
        lambda x, *others: sizes.append(x.shape[1]) or inner(x, *others),
    )
    model = make((1,), update="mogrifier")
    unroll(model, torch.randint(0, V, (B, T)), torch.zeros(B, 12, dtype=torch.float64))
    assert sorted(sizes) == ([1, 2, 2] if torch.get_num_threads() == 3 else [B])


@pytest.mark.parametrize("structure", [(1,), (1, 1), (2, 1, 2)])
@pytest.mark.parametrize("every_block", [True, False])
def test_values_and_gradients_are_those_of_autograd(structure, every_block):
    torch.manual_seed(0)
    blocks = range(len(structure)) if every_block else [len(structure) - 1]
    assert_equal_to_autograd(make(structure), blocks)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_a_mogrifier_has_the_values_and_gradients_of_autograd(rounds):
    torch.manual_seed(0)
    model = make((1,), update="mogrifier", mogrifier_rounds=rounds)
    assert_equal_to_autograd(model, [0])


def assert_equal_to_autograd(model, blocks):
    tokens, start = torch.randint(0, V, (B, T)), torch.randn(B, 12, dtype=torch.float64)
    reads = {block: torch.randn(B, T, 12, dtype=torch.float64) for block in blocks}
    expected, expected_gradients = read(model, tokens, start, reads, by_hand=False)
    found, found_gradients = read(model, tokens, start, reads, by_hand=True)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-12)
    assert found_gradients.keys() >= expected_gradients.keys()
    assert float(expected_gradients["embedding.weight"].abs().max()) > 1e-3
    for name, gradient in found_gradients.items():
        wanted = expected_gradients.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_a_mogrifier_in_float32_follows_float64(rounds):
    torch.manual_seed(0)
    exact = make((1,), update="mogrifier", mogrifier_rounds=rounds)
    tokens, start = torch.randint(0, V, (B, T)), torch.randn(B, 12, dtype=torch.float64)
    reads = {0: torch.randn(B, T, 12, dtype=torch.float64)}
    expected, expected_gradients = read(exact, tokens, start, reads, by_hand=False)
    narrow = copy.deepcopy(exact).float()
    found, gradients = read(narrow, tokens, start.float(), {0: reads[0].float()}, by_hand=True)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=3e-6)
    for name, wanted in expected_gradients.items():
        size = float(wanted.abs().max())
        torch.testing.assert_close(
            gradients[name].double(), wanted, rtol=1e-4, atol=1e-5 * size, msg=name
        )


@pytest.mark.parametrize("update", ["residual", "mogrifier"])
def test_bfloat16_gradients_point_the_same_way(update):
    torch.manual_seed(0)
    structure = (1, 1) if update == "residual" else (1,)
    model = make(structure, torch.float32, update=update, mogrifier_rounds=2)
    tokens, start = torch.randint(0, V, (B, T)), torch.randn(B, 12)
    reads = {len(structure) - 1: torch.randn(B, T, 12)}
    _, expected = read(model, tokens, start, reads, by_hand=True)
    model.compute_dtype = torch.bfloat16
    _, found = read(model, tokens, start, reads, by_hand=True)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        if float(expected[name].norm()) > 0:
            assert torch.cosine_similarity(gradient.flatten(), expected[name].flatten(), 0) > 0.99


@pytest.mark.parametrize(
    "shape", [{"structure": (1, 1)}, {"structure": (1,), "update": "mogrifier"}]
)
def test_nothing_is_kept_where_no_gradient_is_wanted(shape):
    model = make(**shape)
    tokens, start = torch.randint(0, V, (B, T)), torch.zeros(B, 12, dtype=torch.float64)
    with torch.no_grad():
        contexts = unroll(model, tokens, start)
    assert all(context.grad_fn is None for context in contexts)
    model.blocks.requires_grad_(False)
    model.embedding.requires_grad_(False)
    assert not any(context.requires_grad for context in unroll(model, tokens, start))


def test_a_mogrifier_reads_tokens_and_gradients_in_any_layout():
    torch.manual_seed(0)
    model = make((1,), torch.float32, update="mogrifier")
    start, reads = torch.randn(B, 12), torch.randn(12, T, B)
    found = []
    for layout in (lambda x: x, lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)):
        model.zero_grad()
        x_TBE = layout(torch.randn(T, B, 10, generator=torch.Generator().manual_seed(1)))
        contexts = unroll_embedded(model, x_TBE, start)[0]
        # The gradient of the contexts comes with their dimensions the other way round.
        (contexts.permute(2, 1, 0).contiguous() * reads).sum().backward()
        found.append((contexts.detach(), model.layers()[0].context_weight.grad.clone()))
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    with exact.twice_differentiable():
        wanted = unroll_embedded(exact, x_TBE.double(), start.double())[0]
    (wanted.permute(2, 1, 0) * reads.double()).sum().backward()
    for contexts, gradient in found:
        torch.testing.assert_close(contexts.double(), wanted.detach(), rtol=0, atol=3e-6)
        of_weight = exact.layers()[0].context_weight.grad
        torch.testing.assert_close(gradient.double(), of_weight, rtol=1e-4, atol=1e-4)
