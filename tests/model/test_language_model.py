"""Embedding, blocks and heads put together."""

import pytest
import torch
from recurrence import SHAPES, D, E, T, V, draw, draw_tokens, make_model, token_formula

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError
from newllm_core.model.language_model import LanguageModel


def small(vocab_size=V, *, num_heads=1, options=None, seed=0, **shape):
    config = ModelConfig(**({"context_dim": D, "embed_dim": E} | shape))
    return LanguageModel(config, vocab_size, cell=options, num_heads=num_heads, seed=seed)


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def perturb(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_layers_context_equals_the_formula(shape):
    model = make_model(**shape)
    contexts, tokens = draw(T, D), draw_tokens(T)
    by_block = model.step_layers(context=contexts, token=model.embed(tokens))
    found = torch.stack([of_layer for block in by_block for of_layer in block], dim=1)
    rows = zip(tokens.tolist(), contexts, strict=True)
    expected = torch.stack([torch.stack(token_formula(model, token, c)) for token, c in rows])
    assert found.shape == (T, sum(model.config.layer_structure), D)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_layer_structure_gives_a_context_per_block_and_per_layer():
    model = make_model(layer_structure=(2, 3))
    state = {"context": draw(T, D), "token": model.embed(draw_tokens(T))}
    by_block = model.step_layers(**state)
    assert [len(block) for block in by_block] == [2, 3]
    after_blocks = model.step(**state)
    assert len(after_blocks) == model.config.num_blocks == 2
    assert all(torch.equal(a, b[-1]) for a, b in zip(after_blocks, by_block, strict=True))
    with pytest.raises(TypeError):
        model.step(draw(T, D), draw(T, E))


def test_the_start_state_is_zero():
    assert torch.equal(small().start(3), torch.zeros(3, D))


def test_embeddings_enter_the_first_block_normalised():
    model = make_model()
    x = model.embed(draw_tokens(3, T))
    assert x.shape == (3, T, E)
    torch.testing.assert_close(x.mean(-1), torch.zeros(3, T).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(x.square().mean(-1), torch.ones(3, T).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_heads", [1, 2, 3])
def test_heads_read_the_last_blocks(num_heads):
    model = make_model(layer_structure=(1, 2, 1), num_heads=num_heads)
    contexts = [draw(T, D, seed=block) for block in range(3)]
    found = model.logits(contexts)
    assert len(found) == model.num_heads == num_heads
    for logits, head, context in zip(
        found, model.token_output, contexts[3 - num_heads :], strict=True
    ):
        expected = context @ head.weight.T + head.bias
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    shape = {"num_heads": 2, "cell": "gated", "options": {"hidden_dim": 7}}
    assert same(small(seed=5, **shape), small(seed=5, **shape))
    one, other = small(seed=5, **shape), small(seed=6, **shape)
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert a.ndim == 1 or not torch.equal(a, b), name


def test_initial_values_ignore_the_global_random_state():
    torch.manual_seed(1)
    one = small()
    torch.manual_seed(2)
    assert same(one, small())


def test_initial_blocks_depend_on_nothing_but_their_shape_and_seed():
    one = small()
    assert same(one.blocks, small(vocab_size=3, num_heads=2).blocks)
    assert torch.equal(one.embedding.weight, small(num_heads=2).embedding.weight)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_untrained_restores_the_initial_blocks_and_keeps_the_rest(shape):
    initial, trained, trained_before = (small(**shape) for _ in range(3))
    perturb(trained)
    trained_before.load_state_dict(trained.state_dict())

    control = trained.untrained()
    assert same(control.blocks, initial.blocks)
    assert same(control.token_output, trained.token_output)
    assert torch.equal(control.embedding.weight, trained.embedding.weight)
    assert same(trained, trained_before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_untrained_is_the_same_on_every_device():
    control = small().cuda().untrained()
    assert control.embedding.weight.is_cuda
    assert same(control.cpu(), small())


def test_tied_weights_are_one_parameter():
    model = small(embed_dim=D, tie_weights=True, num_heads=2)
    free = small(embed_dim=D, num_heads=2)
    assert model.token_output[-1].weight is model.embedding.weight
    assert model.token_output[0].weight is not model.embedding.weight
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, free)]
    projections = 2 * (D * D + D)
    assert sizes[1] - sizes[0] == V * D - projections
    control = model.untrained()
    assert control.token_output[-1].weight is control.embedding.weight
    assert control.embedding.weight is not model.embedding.weight


def test_a_tied_head_keeps_the_initial_embedding():
    tied = small(embed_dim=D, tie_weights=True)
    assert torch.equal(tied.embedding.weight, small(embed_dim=D).embedding.weight)


@pytest.mark.parametrize("tie_weights", [False, True])
def test_expanded_heads_are_copies_of_the_last(tie_weights):
    model = small(embed_dim=D, tie_weights=tie_weights, layer_structure=(1, 1, 1))
    perturb(model)
    last = model.token_output[-1]
    context = torch.randn(T, D, generator=torch.Generator().manual_seed(0))
    before = model.logits([context])[0]
    model.expand_heads()
    assert model.num_heads == 3
    assert model.token_output[-1] is last
    found = model.logits([context] * 3)
    assert all(torch.equal(logits, before) for logits in found)
    weights = {head.weight.data_ptr() for head in model.token_output}
    assert len(weights) == 3
    assert (model.embedding.weight.data_ptr() in weights) == tie_weights


@pytest.mark.parametrize(("embeddings", "trained"), [("random", True), ("x.safetensors", False)])
def test_only_random_embeddings_are_trained(embeddings, trained):
    assert small(embeddings=embeddings).embedding.weight.requires_grad is trained


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_model_that_is_too_large_is_refused_before_it_takes_memory(shape):
    counted = []
    model = LanguageModel(
        ModelConfig(
            **{"context_dim": D, "embed_dim": E}
            | {k: v for k, v in shape.items() if k != "options"}
        ),
        V,
        cell=shape.get("options"),
        refuse=counted.append,
    )
    assert counted == [sum(p.numel() for p in model.parameters())]
    with pytest.raises(ConfigError, match=r"parameters, which take 8,\d{3} GB of memory"):
        small(1, context_dim=1 << 20, embed_dim=1)
