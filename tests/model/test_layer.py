"""One update against its formula."""

import pytest
import torch
from recurrence import D, E, draw, layer_formula

from newllm_core.model.block import CVFPBlock
from newllm_core.model.layer import CVFPLayer

N = 7


def make_layer(seed=0, **options):
    layer = CVFPLayer(D, E, **options).double()
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed * 100 + number))
    return layer


@pytest.mark.parametrize("update", ["residual", "gated"])
@pytest.mark.parametrize("hidden_dim", [None, D + E, 5, 40])
@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_values_and_gradients_equal_the_formula(update, hidden_dim, mix):
    layer = make_layer(hidden_dim=hidden_dim, update=update, layernorm_mix=mix)
    context, token = draw(N, D, seed=50).requires_grad_(), draw(N, E, seed=51).requires_grad_()
    weights = draw(N, D + E, seed=52)

    found = torch.cat(layer(context=context, token=token), dim=1)
    rows = [layer_formula(layer, c, x) for c, x in zip(context, token, strict=True)]
    expected = torch.stack([torch.cat(row) for row in rows])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)

    inputs = [context, token, *layer.parameters()]
    found_gradients = torch.autograd.grad((found * weights).sum(), inputs, allow_unused=True)
    gradients = torch.autograd.grad((expected * weights).sum(), inputs, allow_unused=True)
    for one, other in zip(found_gradients, gradients, strict=True):
        # Without any LayerNorm in the mix its parameters have no gradient at all.
        other = None if one is None and not other.any() else other
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_context_and_token_cannot_be_swapped_by_position():
    layer = make_layer()
    with pytest.raises(TypeError):
        layer(draw(N, D), draw(N, E))
    with pytest.raises(TypeError):
        CVFPBlock([layer])(draw(N, D), draw(N, E))


@pytest.mark.parametrize(("hidden_dim", "matrices"), [(None, 2), (D + E, 2), (D + E + 1, 3)])
def test_one_matrix_where_hidden_dim_is_the_width(hidden_dim, matrices):
    layer = make_layer(hidden_dim=hidden_dim)
    assert sum(p.ndim == 2 for p in layer.parameters()) == matrices
    hidden = hidden_dim or D + E
    weights = hidden * (D + E) + (hidden * (D + E) if matrices == 3 else 0)
    assert sum(p.numel() for p in layer.parameters() if p.ndim == 2) == weights


def test_without_layernorm_a_residual_update_only_adds():
    layer = make_layer(layernorm_mix=0.0)
    context, token = draw(N, D), draw(N, E)
    new_context, new_token = layer(context=context, token=token)
    assert (new_context >= context).all()
    assert (new_token >= token).all()
    assert (new_context > context).any()


def test_with_layernorm_contexts_have_a_fixed_norm():
    layer = CVFPLayer(D, E).double()
    layer.initialise(0.5, torch.Generator().manual_seed(0))
    new_context, _ = layer(context=100 * draw(N, D), token=draw(N, E))
    norms = new_context.norm(dim=1)
    torch.testing.assert_close(norms, torch.full((N,), D**0.5).double(), rtol=1e-5, atol=0)


def test_a_gated_context_stays_between_the_old_one_and_one():
    layer = make_layer(update="gated")
    context = 3 * draw(N, D)
    new_context, _ = layer(context=context, token=draw(N, E))
    assert (new_context.abs() <= context.abs().clamp(min=1)).all()


@pytest.mark.parametrize("update", ["residual", "gated"])
def test_initial_values(update):
    layer = CVFPLayer(200, 100, 250, update=update)
    layer.initialise(0.07, torch.Generator().manual_seed(3))
    for name, parameter in layer.named_parameters():
        if parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.07, rel=0.03), name
            assert abs(parameter.mean().item()) < 0.002, name
        elif name == "gate_bias":
            assert parameter.unique().tolist() == [1.0]
        elif name.startswith("norm") and name.endswith("weight"):
            assert parameter.unique().tolist() == [1.0], name
        else:
            assert parameter.unique().tolist() == [0.0], name


def test_a_block_returns_the_context_after_each_of_its_layers():
    layers = [make_layer(seed) for seed in range(3)]
    context, token = draw(N, D), draw(N, E)
    contexts, new_token = CVFPBlock(layers)(context=context, token=token)
    assert len(contexts) == 3
    for layer, found in zip(layers, contexts, strict=True):
        context, token = layer(context=context, token=token)
        assert torch.equal(found, context)
    assert torch.equal(new_token, token)
