"""What every regularizer promises, whatever its formula."""

import dataclasses

import pytest
import torch

from newllm_core.errors import ConfigError
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.settings import make_section

from .cases import OWN, D, N, batch, build


@pytest.mark.parametrize(
    ("contexts_shape", "tokens_shape"),
    [
        ((N, D + 1), (N,)),
        ((N, D - 1), (N,)),
        ((D,), (1,)),
        ((N, 1, D), (N,)),
        ((0, D), (0,)),
        ((N, D), (N - 1,)),
        ((N, D), (N, 1)),
        ((N, D), ()),
    ],
)
def test_wrong_shapes(variant, contexts_shape, tokens_shape):
    regularizer = build(variant)
    before = {key: value.clone() for key, value in regularizer.state_dict().items()}
    tokens = torch.zeros(tokens_shape, dtype=torch.long)
    with pytest.raises(ValueError, match="expected"):
        regularizer(torch.ones(contexts_shape), tokens_N=tokens)
    assert_same(regularizer.state_dict(), before)


def test_tokens_are_keyword_only(variant):
    contexts, tokens = batch()
    with pytest.raises(TypeError):
        build(variant)(contexts, tokens)


@pytest.mark.parametrize("calls", [0, 1])
def test_evaluation_freezes_statistics(variant, calls):
    regularizer = build(variant)
    for _ in range(calls):
        regularizer(batch()[0], tokens_N=batch()[1])
    before = {key: value.clone() for key, value in regularizer.state_dict().items()}
    regularizer.eval()
    contexts, tokens = batch(seed=1)
    first = regularizer(contexts, tokens_N=tokens)
    assert_same(regularizer.state_dict(), before)
    assert torch.equal(regularizer(contexts, tokens_N=tokens), first)


def test_training_moves_statistics(variant):
    regularizer = build(variant)
    before = {key: value.clone() for key, value in regularizer.state_dict().items()}
    # The first call of the published variance only starts its mean.
    for seed in range(2):
        contexts, tokens = batch(seed=seed)
        regularizer(contexts, tokens_N=tokens)
    for key, value in regularizer.state_dict().items():
        assert not torch.equal(value, before[key]), key
        assert not value.requires_grad


def test_state_dict_carries_all_that_the_next_loss_needs(variant):
    first, second = build(variant), build(variant)
    for seed in range(3):
        contexts, tokens = batch(seed=seed)
        first(contexts, tokens_N=tokens)
    second.load_state_dict(first.state_dict())
    for seed in range(3, 5):
        contexts, tokens = batch(seed=seed)
        expected = first(contexts, tokens_N=tokens)
        assert torch.equal(second(contexts, tokens_N=tokens), expected)


def test_nothing_is_learned_and_nothing_random_is_drawn(variant):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    regularizer = build(variant)
    regularizer(batch()[0], tokens_N=batch()[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert list(regularizer.parameters()) == []


def test_contexts_are_left_as_they_are(variant):
    contexts, tokens = batch()
    before = contexts.clone(), tokens.clone()
    build(variant)(contexts, tokens_N=tokens)
    assert torch.equal(contexts, before[0])
    assert torch.equal(tokens, before[1])


def test_several_calls_before_one_backward(training_variant):
    """As when every layer is regularized: updating a buffer must not spoil an earlier graph."""
    regularizer = build(training_variant)
    batches = [batch(seed=seed) for seed in range(3)]
    contexts = [c.requires_grad_() for c, _ in batches]
    sum(regularizer(c, tokens_N=t) for c, (_, t) in zip(contexts, batches, strict=True)).backward()
    assert all(c.grad.norm() > 1e-6 for c in contexts)


@pytest.mark.parametrize("name", OWN)
def test_options_are_documented_and_their_defaults_are_allowed(name):
    options_type = REGULARIZERS.load(name).Options
    make_section(options_type, "regularizer", {})
    for spec in dataclasses.fields(options_type):
        assert spec.metadata["help"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ema-variance", {"momentum": 1.0}),
        ("ema-variance", {"momentum": -0.1}),
        ("ema-variance", {"epsilon": 0.0}),
        ("ema-variance", {"form": "median"}),
        ("ema-variance", {"gradient": "dead"}),
        ("distribution", {"statistics": "all"}),
        ("distribution", {"momentum": 1.0}),
        ("covariance-ema", {"momentum": 1.0}),
        ("past-contexts", {"num_contexts": 0}),
        ("fixed-dimensions", {"share": 1.1}),
        ("none", {"momentum": 0.5}),
    ],
)
def test_options_out_of_bounds(name, values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        make_section(REGULARIZERS.load(name).Options, "regularizer", values)


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert torch.equal(value, expected[key]), key
