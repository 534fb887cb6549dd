"""The terms of the Phase 1 loss and their weights."""

import pytest
import torch
from naive_phase1 import make_config, make_loss, make_window
from recurrence import D, T, draw, make_model

from newllm_core.errors import PluginError
from newllm_core.regularizers.base import Regularizer
from newllm_core.training.phase1.engines import Batch
from newllm_core.training.phase1.loss import Phase1Loss, regularizer_weight


def terms_of(config, model=None, *, training=True):
    loss = make_loss(model or make_model(), config).train(training)
    return read_with(loss, draw(T, D, seed=3))


def read_with(loss, incoming=None):
    """The loss of all tokens of a window, from the contexts of the reading before by default."""
    window = make_window(T, readings=1)
    incoming = window.previous_TC if incoming is None else incoming
    return loss.of_batch(window, Batch(torch.arange(T), incoming, [T]))


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.95])
def test_terms_are_weighted_and_summed(weight):
    terms = terms_of(make_config(dist_reg_weight=weight))
    plain = {name: loss.item() for name, loss in terms.losses.items()}
    assert list(plain) == ["cvfp", "regularizer"]
    assert terms.weighted["cvfp"].item() == pytest.approx((1 - weight) * plain["cvfp"])
    assert terms.weighted["regularizer"].item() == pytest.approx(weight * plain["regularizer"])
    total = (1 - weight) * plain["cvfp"] + weight * plain["regularizer"]
    assert terms.total.item() == pytest.approx(total)


@pytest.mark.parametrize(
    ("weight", "objective", "names"),
    [
        (0.0, "cvfp", ["cvfp"]),
        (1.0, "cvfp", ["regularizer"]),
        (0.0, "reconstruction", ["reconstruction"]),
        (0.5, "reconstruction", ["reconstruction", "regularizer"]),
    ],
)
def test_a_term_of_weight_zero_is_left_out(weight, objective, names):
    terms = terms_of(make_config(dist_reg_weight=weight, objective=objective))
    assert list(terms.losses) == list(terms.weighted) == names


@pytest.mark.parametrize("decoder", ["mlp", "linear"])
def test_reconstruction_weighs_the_two_halves_of_its_target(decoder):
    options = {"objective": {"context_weight": 0.25, "decoder": decoder}}
    config = make_config(options, dist_reg_weight=0.0, objective="reconstruction")
    model = make_model()
    window, incoming = make_window(T, readings=1), draw(T, D, seed=3)
    token = model.embed(window.tokens_T)
    loss = make_loss(model, config)
    guess = model.step(context=incoming, token=token)[-1]
    assert (loss.objective.hidden is None) == (decoder == "linear")
    for layer in (loss.objective.hidden, loss.objective.output):
        if layer is not None:
            guess = guess if layer.in_features == D else guess.clamp(min=0)
            guess = guess @ layer.weight.T + layer.bias
    of_context = (guess[:, :D] - incoming).square().sum().item()
    of_token = (guess[:, D:] - token).square().sum().item()
    expected = (0.25 * of_context + of_token) / (0.25 * T * D + token.numel())
    found = read_with(loss, incoming).losses["reconstruction"].item()
    assert found == pytest.approx(expected, rel=1e-12)


def test_cvfp_is_the_mean_squared_change_without_any_normalising():
    config = make_config(dist_reg_weight=0.0)
    model = make_model()
    window = make_window(T, readings=1)
    incoming = draw(T, D, seed=3)
    found = terms_of(config, model)
    new = model.step(context=incoming, token=model.embed(window.tokens_T))[-1]
    squares = (new - window.previous_TC).square().sum().item()
    assert found.losses["cvfp"].item() == pytest.approx(squares / (T * D), rel=1e-12)
    assert torch.equal(found.contexts_NC, new)
    assert not found.contexts_NC.requires_grad


def test_training_and_validation_are_the_same_computation():
    config = make_config()
    training, validation = (terms_of(config, training=flag) for flag in (True, False))
    assert training.losses == validation.losses


@pytest.mark.parametrize(
    ("name", "default"), [("covariance-ema", None), ("none", 0.0), ("ema-variance", None)]
)
def test_the_weight_asked_for_wins_over_the_regularizers_own(name, default):
    config = make_config(reg=name)
    (regularizer,) = make_loss(make_model(), config).regularizers
    assert regularizer_weight([regularizer], config.phase1) == 0.3
    free = make_config(reg=name, dist_reg_weight="none").phase1
    expected = regularizer.default_weight if default is None else default
    assert regularizer_weight([regularizer], free) == expected


@pytest.mark.parametrize("returned", ["vector", "number"])
def test_a_regularizer_that_returns_no_scalar_is_named(returned):
    class Broken(Regularizer):
        def loss(self, contexts_ND, *, tokens_N):
            return contexts_ND.mean(0) if returned == "vector" else 1.0

    given = make_loss(make_model(), make_config())
    loss = Phase1Loss(given.model, given.objective, [Broken(D)], make_config().phase1)
    # By the name that it was asked for.
    with pytest.raises(PluginError, match=r"distribution.* returned no scalar") as caught:
        read_with(loss)
    assert caught.value.exit_code == 4


def test_every_layer_has_a_regularizer_of_its_own():
    config = make_config(apply_to="every-layer", reg="covariance-ema")
    model = make_model(layer_structure=(2, 3))
    loss = make_loss(model, config)
    window = make_window(T, readings=1)
    read_with(loss)
    covariances = [regularizer.covariance_DD for regularizer in loss.regularizers]
    assert len(covariances) == 5
    x = model.embed(window.tokens_T)
    by_layer = [
        c for block in model.step_layers(context=window.previous_TC, token=x) for c in block
    ]
    for covariance, contexts in zip(covariances, by_layer, strict=True):
        expected = 0.9 * torch.eye(D) + 0.1 * (contexts.T @ contexts / len(contexts)).float()
        torch.testing.assert_close(covariance, expected)
