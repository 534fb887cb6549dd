"""Evaluation of peers against naive loops; windows and epochs."""

import math

import numpy as np
import pytest
import torch

from benchmarks.comparison import reading
from benchmarks.comparison.neural import PEERS
from benchmarks.comparison.reading import evaluate
from benchmarks.comparison.training import _Windows
from newllm_core.config import Phase2Config

from .conftest import END, VOCAB

RECURRENT = [name for name in PEERS if PEERS[name].carries_state]
OPTIONS = {"end_id": END, "way": "float32", "context": 12}


def peer_of(name):
    torch.manual_seed(5)
    peer = PEERS[name](VOCAB, 16, dropout=0.5)
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
        nats.append(-float(torch.log_softmax(peer.head(y[0, -1]), -1)[read[t + 1]]))
    return nats


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_figures_equal_a_naive_loop(name, dataset):
    peer, text = peer_of(name), dataset.validation
    found = evaluate(peer, text, num_streams=1, **OPTIONS)
    expected = sum(naive_nats(peer.eval(), text.tokens, None))
    assert found["loss"] * len(text.tokens) == pytest.approx(expected, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(expected / math.log(2) / text.num_bytes, 1e-5)
    assert found["num_tokens"] == len(text.tokens) == 300


def test_the_transformer_has_half_a_window_before_every_token(dataset, monkeypatch):
    peer, text = peer_of("transformer"), dataset.validation
    # Windows of 12 begin every 6 tokens, and only their second halves count.
    found = evaluate(peer, text, **OPTIONS)
    nats = naive_nats(peer, text.tokens, lambda t: t + 1 if t < 12 else 7 + t % 6)
    assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 30)
    monkeypatch.setattr(reading, "LOGITS_AT_ONCE", 200)
    assert evaluate(peer, text, **OPTIONS)["loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_streams_are_close_to_one(dataset, monkeypatch):
    peer, text = peer_of("gru"), dataset.train
    one = evaluate(peer, text, num_streams=1, **OPTIONS)
    many = evaluate(peer, text, num_streams=7, warmup=64, **OPTIONS)
    rough = evaluate(peer, text, num_streams=7, warmup=0, **OPTIONS)
    assert many["num_tokens"] == one["num_tokens"] == 2000
    assert many["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert abs(rough["loss"] - one["loss"]) > 10 * abs(many["loss"] - one["loss"])
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 14)
    again = evaluate(peer, text, num_streams=7, warmup=64, **OPTIONS)
    assert again["loss"] == pytest.approx(many["loss"], rel=1e-6)


def test_dropout_is_off_and_comes_back(dataset):
    peer = peer_of("lstm").train()
    first, second = (evaluate(peer, dataset.validation, **OPTIONS) for _ in range(2))
    assert first == second
    assert peer.training


@pytest.mark.parametrize("context", [None, 32])
def test_windows_read_every_token_once(dataset, context):
    config = Phase2Config(num_streams=6, bptt=16, max_tokens=1000)
    windows = _Windows(dataset, config, context, seed=0)
    read = [positions for positions in windows.positions(1)]
    places = np.concatenate([positions.ravel() for positions in read])
    assert len(set(places.tolist())) == len(places) == windows.num_tokens
    assert windows.num_tokens > 990
    assert len(read) == windows.num_steps
    assert read[0].shape == ((6, 16) if context is None else (3, 32))
    # A transformer's windows move in later epochs; streams that carry a state stay.
    later = next(iter(windows.positions(2)))
    assert (later[0, 0] != 0) == (context is not None)
