"""Token memory against theory and scikit-learn."""

import numpy as np
import pytest
import torch

from newllm_core.analysis.token_memory import (
    _Fitting,
    _held_out_gain,
    label,
    token_memory,
)

from . import maps


def delay_line(length, vocab=8):
    """The last `length` tokens, one-hot, and nothing else."""

    def shift(context, token):
        newest = torch.nn.functional.one_hot(token[:, 0].long(), vocab).double()
        return torch.cat([newest, context[:, :-vocab]], dim=1)

    return maps.Map(length * vocab, shift)


def memory_of(model, tokens, lags, warmup=0):
    contexts = maps.trajectory(model, tokens, model.start(len(tokens)))[:, 1:]
    return token_memory(label(contexts[:, warmup:], tokens, lags=lags, frequent=64))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_delay_line_remembers_its_length_and_nothing_beyond(length):
    tokens = maps.random_tokens(16, 300, 8)
    found = memory_of(delay_line(length), tokens, lags=10, warmup=20)
    assert found["by_lag"][:length] == pytest.approx([1.0] * length, abs=0.01)
    assert max(found["by_lag"][length:]) < 0.01
    assert found["total"] == pytest.approx(length, abs=0.05)
    assert found["num_classes"] == 8


def test_contexts_that_ignore_tokens_remember_nothing():
    contexts = maps.draw(16, 300, 12)
    found = token_memory(label(contexts, maps.random_tokens(16, 300, 8), lags=6, frequent=64))
    assert found["total"] < 0.02
    for value in (0.0, 1 / 3, 1e20):
        still = torch.full((16, 300, 12), value)
        constant = token_memory(label(still, maps.random_tokens(16, 300, 8), lags=6, frequent=64))
        assert constant["total"] < 0.02


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_what_is_remembered_does_not_depend_on_the_unit_of_contexts(scale):
    tokens = maps.random_tokens(16, 100, 4)
    contexts = torch.nn.functional.one_hot(tokens, 4).float()
    found = token_memory(label(scale * contexts, tokens, lags=2, frequent=64))
    assert found["total"] == pytest.approx(1, abs=0.02)


def test_half_of_what_was_read_is_half_a_token():
    """A context that knows a token of four equally likely ones up to one bit."""
    tokens = maps.random_tokens(24, 500, 4)
    contexts = (tokens // 2)[..., None].double() + 0.01 * maps.draw(24, 500, 1)
    found = token_memory(label(contexts, tokens, lags=1, frequent=64))
    assert found["total"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_the_standard_error_covers_the_memory_of_a_noisy_channel(seed):
    """A symmetric channel: H - CE is its capacity, known in closed form."""
    flip = 0.2
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, (40, 200), generator=generator)
    wrong = torch.rand(40, 200, generator=generator) < flip
    contexts = torch.where(wrong, 1 - tokens, tokens)[..., None].double()
    found = token_memory(label(contexts, tokens, lags=1, frequent=64))
    capacity = 1 + flip * np.log2(flip) + (1 - flip) * np.log2(1 - flip)
    assert abs(found["total"] - capacity) < 4 * found["stderr"]
    assert 0 < found["stderr"] < 0.05


def test_the_probe_is_scikit_learns_linear_discriminant_analysis(monkeypatch):
    discriminant = pytest.importorskip("sklearn.discriminant_analysis")
    monkeypatch.setattr("newllm_core.analysis.token_memory.RIDGE", 0.0)  # it has none
    classes = torch.arange(600) % 5
    means = 0.7 * maps.draw(5, 9, seed=1)
    mixing = torch.eye(9) + 0.2 * maps.draw(9, 9, seed=3)
    contexts = means[classes] + maps.draw(600, 9, seed=2) @ mixing + 2
    weights, offset, prior = _Fitting(contexts).fit(classes, 5)
    ours = (prior + contexts @ weights.T - offset).log_softmax(-1)
    peer = discriminant.LinearDiscriminantAnalysis(solver="lsqr", priors=prior.exp().numpy())
    peer.fit(contexts.numpy(), classes.numpy())
    expected = torch.from_numpy(peer.predict_log_proba(contexts.numpy()))
    torch.testing.assert_close(ours, expected)


def test_a_probe_of_logistic_regression_finds_about_as_much():
    linear = pytest.importorskip("sklearn.linear_model")
    mixing = 0.6 * torch.linalg.qr(maps.draw(40, 40))[0]
    codes = maps.draw(6, 40, seed=5)
    model = maps.Map(40, lambda c, x: torch.tanh(c @ mixing.T + codes[x[:, 0].long()]))
    tokens = maps.random_tokens(16, 400, 6)
    contexts = maps.trajectory(model, tokens, model.start(16))[:, 1:]
    labelled = label(contexts[:, 20:], tokens, lags=2, frequent=64)
    found = token_memory(labelled)["by_lag"]
    held = torch.arange(16) % 4 == 3
    seen, judged = (labelled.contexts[part].flatten(0, 1).numpy() for part in (~held, held))
    for lag, ours in enumerate(found):
        wanted = labelled.classes[lag, held].flatten().numpy()
        peer = linear.LogisticRegression(max_iter=500)
        peer.fit(seen, labelled.classes[lag, ~held].flatten().numpy())
        loss = -peer.predict_log_proba(judged)[np.arange(len(wanted)), wanted].mean()
        assert ours == pytest.approx(1 - loss / np.log(6), abs=0.08)


def test_lags_point_at_the_tokens_that_were_read():
    tokens = torch.arange(24).view(2, 12) % 5
    labelled = label(torch.zeros(2, 8, 1), tokens, lags=3, frequent=64)
    # Two passages are cut into eight: 8 counted tokens become 4 parts of 2.
    assert labelled.contexts.shape == (8, 2, 1)
    for lag in range(3):
        expected = tokens[:, 4 - lag : 12 - lag].reshape(8, 2)
        # Classes are ranks of frequency: the same token has the same class.
        ids, ranks = (x.flatten().tolist() for x in (expected, labelled.classes[lag]))
        pairs = set(zip(ids, ranks, strict=True))
        assert len(pairs) == len({token for token, _ in pairs})


@pytest.mark.parametrize("ids", [(-1, 1, 2**40), (7, 0, 2**62)])
def test_classes_do_not_depend_on_the_size_of_ids(ids):
    tokens = maps.random_tokens(8, 40, 3)
    contexts = torch.zeros(8, 40, 2)
    for frequent in (1, 2, 64):
        found = label(contexts, torch.tensor(ids)[tokens], lags=3, frequent=frequent)
        expected = label(contexts, tokens, lags=3, frequent=frequent)
        assert torch.equal(found.classes, expected.classes)
        assert found.num_classes == expected.num_classes == min(3, frequent + 1)


def test_rare_tokens_share_a_class_and_short_texts_have_fewer_lags():
    tokens = maps.random_tokens(8, 40, 500)
    labelled = label(torch.zeros(8, 40, 2), tokens, lags=32, frequent=64)
    assert labelled.num_classes == 65
    assert labelled.classes.shape == (20, 8, 40 - 19)
    assert int(labelled.classes.max()) == 64


def test_a_probe_with_more_dimensions_than_contexts_is_not_fooled():
    contexts = maps.draw(8, 20, 300)
    found = token_memory(label(contexts, maps.random_tokens(8, 20, 4), lags=3, frequent=64))
    assert found["total"] < 0.15


def test_the_temperature_is_not_chosen_on_the_tokens_it_is_used_on():
    """A probe that is right about every other passage and wrong about the rest."""
    classes = maps.random_tokens(8, 50, 2)
    right = torch.nn.functional.one_hot(classes, 2).double()
    scores = 4 * torch.where(torch.arange(8)[:, None, None] % 2 == 0, right, 1 - right)
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    gain, entropy = _held_out_gain(scores, prior, classes)
    assert entropy == pytest.approx(np.log(2))
    # Where it is right it was found wrong elsewhere, and says nothing; and the reverse.
    assert gain[::2].tolist() == pytest.approx([0.0] * 4, abs=1e-9)
    assert gain[1::2].max() < -3


def test_a_single_short_passage_is_cut_until_some_of_it_is_held_out():
    tokens = maps.random_tokens(1, 28, 3)
    contexts = torch.nn.functional.one_hot(tokens, 3).double()
    for length in (8, 28):
        found = label(contexts[:, :length], tokens[:, :length], lags=1, frequent=64)
        assert token_memory(found)["by_lag"][0] > 0.5
