"""Heads that are mixed with counts: counted from what is read, kept, expanded, written with."""

import numpy as np
import pytest
import torch
from markov_text import END, VOCAB, checkpoint, dataset
from torch.nn import functional as F

from newllm_core.checkpoint import format as checkpoints
from newllm_core.config import AnalysisConfig, Config, GenerationConfig, Phase2Config
from newllm_core.errors import InputError
from newllm_core.generation.session import Session
from newllm_core.pipeline.trained import expand
from newllm_core.training.phase2.run import train_phase2
from newllm_core.training.phase2.source import counted
from tests.few import FEW

FAST = {"learning_rate": 0.03, "num_streams": 8, "bptt": 16, "batch_tokens": 100}


def run(start, **options):
    config = Config(
        phase2=Phase2Config(**FAST | options), analysis=AnalysisConfig(**FEW["analysis"])
    )
    return train_phase2(start, dataset(), config)


def loss_of(trained):
    return trained.results["validation"]["loss"]


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "fine-tuned"])
def test_counts_are_worth_more_than_an_epoch_and_the_gate_finds_out(frozen):
    plain = run(checkpoint(), freeze_context=frozen, epochs=1)
    mixed = run(checkpoint(head_bigrams=100), freeze_context=frozen, epochs=1)
    assert mixed.model.bigrams.totals.sum() == len(dataset().train.tokens)
    assert loss_of(mixed) < loss_of(plain) - 0.1
    # Most of a text in which one token decides the next is theirs.
    assert torch.sigmoid(mixed.model.heads()[0].gate.bias) > 0.52


def test_no_more_is_counted_than_was_asked_for():
    trained = run(checkpoint(head_bigrams=9, counted_tokens=300), epochs=1)
    assert trained.model.bigrams.totals.sum() == 300
    assert (trained.model.bigrams.counts > 0).sum() == 9


def test_only_places_that_were_counted_are_left_out():
    model = run(checkpoint(head_bigrams=100, counted_tokens=300), epochs=1).model
    tokens = torch.from_numpy(dataset().train.tokens[:302].astype(np.int64))
    # The 300 first tokens were counted: the places 299 and before.
    found = counted(model, tokens[297:301], tokens[298:302], np.arange(298, 302))
    inputs, targets = tokens[297:301], tokens[298:302]
    flags = torch.tensor([True, True, False, False])
    wanted = model.bigrams.log_probability(inputs, targets, counted_N=flags)
    assert torch.equal(found, wanted)
    assert not torch.equal(wanted[:2], model.bigrams.log_probability(inputs, targets)[:2])
    assert (wanted != model.bigrams.log_probability(inputs, targets, counted_N=~flags)).all()


def test_every_way_of_reading_sees_the_same_mixture(tmp_path):
    trained = run(checkpoint(head_bigrams=100), epochs=1)
    path = tmp_path / "a.safetensors"
    checkpoints.save(trained, path, overwrite=False)
    loaded = checkpoints.load(path)
    assert not loaded.altered
    assert loaded.identity() == trained.identity()
    expanded = expand(loaded)
    again = run(expanded, epochs=0)
    tokens = dataset().validation.tokens
    session = Session(loaded.model, GenerationConfig(), start_id=END)
    nats = []
    for token in tokens.tolist():
        logits = torch.from_numpy(session._logits())
        nats.append(F.cross_entropy(logits, torch.tensor(token)).item())
        session.read([token])
    assert np.mean(nats) == pytest.approx(loss_of(trained), rel=1e-5)
    *_, last_head = again.results["validation"]["heads"]
    assert last_head["loss"] == pytest.approx(loss_of(trained), rel=1e-5)


def test_damaged_counts_are_refused(tmp_path):
    trained = run(checkpoint(head_bigrams=100), epochs=0)
    trained.model.bigrams.pairs[3] += VOCAB**2
    path = tmp_path / "a.safetensors"
    checkpoints.save(trained, path, overwrite=False)
    with pytest.raises(InputError, match="damaged checkpoint: pairs of bigrams are not in order"):
        checkpoints.load(path)
