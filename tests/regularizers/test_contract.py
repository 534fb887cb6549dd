"""What every regularizer promises, whatever its formula."""

import dataclasses

import pytest
import torch

from newllm_core.errors import ConfigError
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.settings import make_section
from newllm_core.testing import check_regularizer

from .cases import OWN, TRAINING_VARIANTS, D, N, batch, build, label


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


@pytest.mark.parametrize("variant", [*TRAINING_VARIANTS, ("none", {})], ids=label)
def test_they_conform(variant):
    name, options = variant
    found = REGULARIZERS.load(name)
    check_regularizer(found, make_section(found.Options, "regularizer", options))


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
