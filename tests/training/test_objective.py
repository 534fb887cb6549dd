"""The terms of the Phase 1 loss and their weights."""

import pytest
import torch
from naive_phase1 import make_config, make_loss, make_window, matching_model
from recurrence import D, T, draw, make_model

from newllm_core.errors import PluginError
from newllm_core.regularizers.base import Regularizer
from newllm_core.training.phase1.loss import Phase1Loss, regularizer_weight


def terms_of(config, model=None, *, training=True):
    model = model or matching_model(config)
    window = make_window(T, readings=1)
    loss = make_loss(model, config).train(training)
    return loss(
        incoming_NC=draw(T, D, seed=3), tokens_N=window.tokens_T, target_NC=window.previous_TC
    )


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.95])
def test_terms_are_weighted_and_summed(weight):
    terms = terms_of(make_config(dist_reg_weight=weight))
    plain = terms.plain
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
    assert list(terms.plain) == list(terms.weighted) == names


@pytest.mark.parametrize(
    ("objective", "start", "name"),
    [
        ("auto", "carry", "reconstruction"),
        ("auto", "zero", "cvfp"),
        ("cvfp", "carry", "cvfp"),
        ("reconstruction", "zero", "reconstruction"),
    ],
)
def test_auto_is_reconstruction_unless_readings_start_from_zero(objective, start, name):
    config = make_config(objective=objective, start=start)
    model = make_model(reconstruction=True) if name == "reconstruction" else make_model()
    assert list(terms_of(config, model).plain) == [name, "regularizer"]


def test_reconstruction_weighs_the_two_halves_of_its_target():
    config = make_config(dist_reg_weight=0.0, objective="reconstruction", context_weight=0.25)
    model = make_model(reconstruction=True)
    window, incoming = make_window(T, readings=1), draw(T, D, seed=3)
    token = model.embed(window.tokens_T)
    guess = model.decoder(model.step(context=incoming, token=token)[-1])
    of_context = (guess[:, :D] - incoming).square().sum().item()
    of_token = (guess[:, D:] - token).square().sum().item()
    expected = (0.25 * of_context + of_token) / (0.25 * T * D + token.numel())
    assert terms_of(config, model).plain["reconstruction"] == pytest.approx(expected, rel=1e-6)


def test_cvfp_is_the_mean_squared_change_without_any_normalising():
    config = make_config(dist_reg_weight=0.0)
    model = make_model()
    window = make_window(T, readings=1)
    incoming = draw(T, D, seed=3)
    found = terms_of(config, model)
    new = model.step(context=incoming, token=model.embed(window.tokens_T))[-1]
    squares = (new - window.previous_TC).square().sum().item()
    assert found.plain["cvfp"] == pytest.approx(squares / (T * D), rel=1e-12)
    assert torch.equal(found.contexts_NC, new)
    assert not found.contexts_NC.requires_grad


def test_training_and_validation_are_the_same_computation():
    config = make_config()
    training, validation = (terms_of(config, training=flag) for flag in (True, False))
    assert training.plain == validation.plain


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

    loss = Phase1Loss(make_model(), [Broken(D)], make_config().phase1)
    window = make_window(T, readings=1)
    with pytest.raises(PluginError, match="Broken") as caught:
        loss(
            incoming_NC=window.previous_TC,
            tokens_N=window.tokens_T,
            target_NC=window.previous_TC,
        )
    assert caught.value.exit_code == 4


def test_every_layer_has_a_regularizer_of_its_own():
    config = make_config(apply_to="every-layer", reg="covariance-ema")
    model = make_model(layer_structure=(2, 3))
    loss = make_loss(model, config)
    window = make_window(T, readings=1)
    loss(incoming_NC=window.previous_TC, tokens_N=window.tokens_T, target_NC=window.previous_TC)
    covariances = [regularizer.covariance_DD for regularizer in loss.regularizers]
    assert len(covariances) == 5
    x = model.embed(window.tokens_T)
    by_layer = [
        c for block in model.step_layers(context=window.previous_TC, token=x) for c in block
    ]
    for covariance, contexts in zip(covariances, by_layer, strict=True):
        expected = 0.9 * torch.eye(D) + 0.1 * (contexts.T @ contexts / len(contexts)).float()
        torch.testing.assert_close(covariance, expected)
