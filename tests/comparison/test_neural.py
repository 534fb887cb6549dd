"""Training the neural peers and newllm as a peer of theirs."""

import dataclasses
import math

import pytest
import torch

from benchmarks.comparison import neural
from benchmarks.comparison.budget import Budget
from benchmarks.comparison.neural import PEERS, NeuralPeer, phase2
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import AnalysisConfig, Config, Phase2Config
from newllm_core.data.probe import choose_probes
from newllm_core.training.phase2 import candidates as sampling
from newllm_core.training.phase2.candidates import draw_candidates
from newllm_core.training.phase2.run import train_phase2


@pytest.mark.parametrize("name", sorted(PEERS))
def test_peers_learn(name, conditions, monkeypatch):
    monkeypatch.setattr("benchmarks.comparison.neural.phase2", small_steps)
    contestant = NeuralPeer(name, conditions)
    assert abs(contestant.identity(contestant.start)["parameters"] - 49_000) <= 0.05 * 49_000
    found = contestant.train(contestant.start, 0, 4000, "float32", test=True)
    # Guessing by frequency costs 5.3 bits a token, and a token is two bytes.
    assert found["validation"] < 2.5
    assert found["test"] < 2.5
    assert found["tokens"] == pytest.approx(4000, abs=60)
    assert found["epochs"] == 2


def small_steps(setting, budget):
    return dataclasses.replace(phase2(setting, budget), num_streams=4, bptt=16)


def test_what_is_trained_as_newllm_is_what_phase_2_trains(conditions):
    """The same weights after the same steps as the package's own pipeline."""
    contestant = NeuralPeer("newllm", conditions)
    # Both draw what is dropped, but not in the same order.
    nothing = {"dropout": 0.0, "input_dropout": 0.0}
    setting = contestant.start | nothing | {"weight_decay": 0.3}
    config = phase2(setting, Budget(2, 2000))
    start = contestant.build(setting, 5).model
    texts = {
        "train": conditions.dataset.train.tokens,
        "validation": conditions.dataset.train.tokens,
    }
    probes, warmup = choose_probes(texts, AnalysisConfig(probe_tokens=64, probe_passages=2))
    checkpoint = Checkpoint(
        model=start, objective={}, config=Config(model=start.config), tokenizer_json="{}",
        phase="phase1", probes=probes, warmup=warmup,
    )  # fmt: skip
    whole = dataclasses.replace(checkpoint.config, phase2=config, run=conditions.run)
    theirs = train_phase2(checkpoint, conditions.dataset, whole)
    ours = contestant.train(setting, 5, 4000, "float32", test=False)
    expected = theirs.results["validation"]["bits_per_byte"]
    assert ours["validation"] == pytest.approx(expected, rel=1e-5)
    assert ours["best_epoch"] == theirs.results["best_epoch"]


def test_the_weights_of_the_best_epoch_are_the_ones_tested(conditions, monkeypatch):
    reached = iter([2.0, 1.0, 3.0])
    kept = []

    def judge(peer, text, **options):
        kept.append(peer.embedding.weight.detach().clone())
        return next(reached)

    monkeypatch.setattr("benchmarks.comparison.training.bits_per_byte", judge)
    monkeypatch.setattr(
        "benchmarks.comparison.neural.bits_per_byte",
        lambda peer, text, **options: float(torch.equal(peer.embedding.weight, kept[1])),
    )
    contestant = NeuralPeer("gru", conditions)
    found = contestant.train(contestant.start, 0, 6000, "float32", test=True)
    assert (found["best_epoch"], found["validation"], found["test"]) == (2, 1.0, 1.0)


@pytest.mark.parametrize("name", ["newllm", "gru", "transformer"])
def test_the_seed_decides_a_run(name, conditions):
    contestant = NeuralPeer(name, conditions)
    setting = contestant.start | {"dropout": 0.3, "input_dropout": 0.1}
    runs = [contestant.train(setting, seed, 600, "float32", test=False) for seed in (0, 0, 1)]
    bits = [figures["validation"] for figures in runs]
    assert bits[0] == bits[1] != bits[2]


@pytest.mark.parametrize("name", ["newllm", "lstm"])
def test_every_peer_may_start_from_counts_of_what_it_reads(name, conditions):
    contestant = NeuralPeer(name, conditions)
    seen = []
    for start in contestant.axes["embeddings"]:
        setting = contestant.start | {"embeddings": start, "learning_rate": 1e-9}
        seen.append(contestant.train(setting, 0, 600, "float32", test=False)["validation"])
    # Hardly anything is learnt at this rate: what differs is the start.
    assert abs(seen[0] - seen[1]) > 1e-3


@pytest.mark.parametrize("name", ["newllm", "gru", "transformer"])
def test_every_peer_may_be_mixed_with_counts_of_what_it_reads(name, conditions):
    contestant = NeuralPeer(name, conditions)
    found = []
    for pairs in contestant.axes["bigrams"]:
        setting = contestant.start | {"bigrams": pairs, "learning_rate": 1e-9}
        found.append(contestant.train(setting, 0, 600, "float32", test=False)["validation"])
    assert found[1] < found[0] - 0.05


@pytest.mark.parametrize("name", ["newllm", "transformer"])
def test_every_peer_may_compare_with_candidates_in_four_fifths_of_its_steps(
    name, conditions, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        sampling,
        "draw_candidates",
        lambda *given: drawn.append(given[1:3]) or draw_candidates(*given),
    )
    contestant = NeuralPeer(name, conditions)
    steps = -(-6000 // 1024)
    for candidates in (0, 8):
        setting = contestant.start | {"candidates": candidates}
        contestant.train(setting, 0, 6000, "float32", test=False)
        assert len(drawn) == (math.ceil(0.8 * steps) if candidates else 0)
    assert set(drawn) == {(conditions.dataset.info.vocab_size, 8)}
    assert {speed["candidates"] for speed in contestant.speeds} == {0, 2048}


def test_the_speed_is_of_as_many_steps_with_candidates_as_a_run_has(conditions, monkeypatch):
    seen = []
    monkeypatch.setattr(
        neural, "train_peer", lambda *given, **options: seen.append(given[2]) or {"rates": [1, 2]}
    )
    assert NeuralPeer("gru", conditions).rate({"candidates": 8}, "float32") == 2
    steps = 2 * neural.STEPS_PER_ROUND
    sampled = sum(step < seen[0].candidates_share * steps for step in range(steps // 2, steps))
    whole_run = Phase2Config().candidates_share * neural.STEPS_PER_ROUND
    assert sampled == math.ceil(whole_run) < neural.STEPS_PER_ROUND
