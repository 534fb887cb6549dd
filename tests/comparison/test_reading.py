"""Evaluation of peers against naive loops; windows and epochs."""

import math

import pytest
import torch

from benchmarks.comparison import reading
from benchmarks.comparison.neural import PEERS
from benchmarks.comparison.reading import bits_per_byte

from .conftest import END, VOCAB

RECURRENT = [name for name in PEERS if PEERS[name].carries_state]
OPTIONS = {"end_id": END, "way": "float32", "context": 12}


def peer_of(name):
    torch.manual_seed(5)
    kind = PEERS[name]
    peer = kind(VOCAB, 16, shape=kind.shapes[0], dropout=0.5, input_dropout=0.5)
    # Fresh ones say almost nothing; this one has opinions.
    torch.nn.init.normal_(peer.embedding.weight, std=0.8)
    return peer


@torch.no_grad()
def naive_nats(peer, tokens, history):
    """The nats of each token, predicted from all before it or from the last `history` ones."""
    peer.eval()
    read = [END, *tokens.tolist()]
    nats = []
    state = peer.start(1)
    for t in range(len(tokens)):
        if history is None:
            y, state = peer(torch.tensor([[read[t]]]), state)
        else:
            y, _ = peer(torch.tensor([read[t + 1 - history(t) : t + 1]]), [])
        logits = torch.nn.functional.linear(y[0, -1], peer.head.weight, peer.head.bias)
        nats.append(-float(torch.log_softmax(logits, -1)[read[t + 1]]))
    return nats


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_figures_equal_a_naive_loop(name, dataset):
    peer, text = peer_of(name), dataset.validation
    found = bits_per_byte(peer, text, num_streams=1, **OPTIONS)
    expected = sum(naive_nats(peer, text.tokens, None))
    assert found == pytest.approx(expected / math.log(2) / text.num_bytes, 1e-5)


def test_the_transformer_has_half_a_window_before_every_token(dataset, monkeypatch):
    peer, text = peer_of("transformer"), dataset.validation
    # Windows of 12 begin every 6 tokens, and only their second halves count.
    found = bits_per_byte(peer, text, **OPTIONS)
    nats = naive_nats(peer, text.tokens, lambda t: t + 1 if t < 12 else 7 + t % 6)
    assert found == pytest.approx(sum(nats) / math.log(2) / text.num_bytes, rel=1e-5)
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 30)
    monkeypatch.setattr(reading, "LOGITS_AT_ONCE", 200)
    assert bits_per_byte(peer, text, **OPTIONS) == pytest.approx(found, rel=1e-6)


def test_streams_are_close_to_one(dataset, monkeypatch):
    peer, text = peer_of("gru"), dataset.train
    one = bits_per_byte(peer, text, num_streams=1, **OPTIONS)
    many = bits_per_byte(peer, text, num_streams=7, warmup=64, **OPTIONS)
    rough = bits_per_byte(peer, text, num_streams=7, warmup=0, **OPTIONS)
    assert many == pytest.approx(one, abs=1e-5)
    assert abs(rough - one) > 10 * abs(many - one)
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 14)
    again = bits_per_byte(peer, text, num_streams=7, warmup=64, **OPTIONS)
    assert again == pytest.approx(many, rel=1e-6)


def test_dropout_is_off_and_comes_back(dataset):
    peer = peer_of("lstm").train()
    first, second = (bits_per_byte(peer, dataset.validation, **OPTIONS) for _ in range(2))
    assert first == second
    assert peer.training
