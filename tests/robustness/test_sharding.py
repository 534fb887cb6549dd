"""Processes that hold a share of the model each make the steps of one that holds all of it."""

import os
import signal
import time
from itertools import count
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open

from newllm_core import settings
from newllm_core.checkpoint.run_state import state_path
from newllm_core.errors import ConfigError
from newllm_core.model.counting import count_bigrams
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives as distributed
from newllm_core.parallel.collectives import full_tensor, is_dtensor
from newllm_core.parallel.sharding import sharded
from newllm_core.runtime.progress import Silent
from newllm_core.training.saver import RunSaver
from newllm_core.trajectory.sequential import rollout, unroll
from tests.robustness.runs import (
    child,
    ended,
    metrics,
    names,
    same_losses,
    start_together,
    train,
)

SHARDED = {"sharding": "full"}
CPU = torch.device("cpu")
GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow)


@pytest.mark.parametrize("case", ["parallel", *map(slow, ("fine-tuned", "streams", "frozen"))])
def test_the_losses_of_one_process(case, home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    assert ended(start_together(case, home, out, run=SHARDED)) == [0, 0]
    same_losses(metrics(out), reference(case).metrics)
    assert names(tmp_path) == ["run.metrics.jsonl", "run.safetensors"]
    with safe_open(out, framework="pt") as found, safe_open(reference(case).path, "pt") as expected:
        assert found.keys() == expected.keys()
        for name in expected.keys():  # noqa: SIM118
            difference = found.get_tensor(name) - expected.get_tensor(name)
            assert difference.abs().max() < 1e-3


def was_trained(path):
    """Say whether a state was saved after a step, with what the optimizer knows."""
    if not path.exists():
        return False
    with safe_open(path, "pt") as state:
        return any(name.startswith("optimizer.") for name in state.keys())  # noqa: SIM118


def until_asked(case, home, out, layers):
    """A run whose second process, after some steps, waits to be asked to stop, or killed."""
    maybe_save, looks = RunSaver.maybe_save, count()

    def wait(saver, state):
        waits = distributed.rank() == 1 and next(looks) >= 9  # six batches are only read
        while waits and not saver.interruption.asked:
            time.sleep(0.01)
        maybe_save(saver, state)

    RunSaver.maybe_save = wait
    child(case, home, out, layers)


@pytest.mark.parametrize("case", ["parallel", slow("fine-tuned")])
def test_stopped_by_a_signal_it_goes_on_as_any_number_of_processes(case, home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    saved_often = SHARDED | {"save_interval_seconds": 0.0}
    processes = start_together(case, home, out, target=until_asked, run=saved_often)
    while not was_trained(state_path(out)) and processes[0].exitcode is None:
        processes[0].join(0.01)
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    assert ended(processes) == [130, 130]
    assert names(tmp_path) == ["run.metrics.jsonl", "run.resume"]
    assert was_trained(state_path(out))
    if case == "parallel":
        train(case, home, out)
    else:
        assert ended(start_together(case, home, out, run=SHARDED)) == [0, 0]
    same_losses(metrics(out), reference(case).metrics)


def test_a_lost_process_leaves_the_state_saved_last(home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    saved_often = SHARDED | {"save_interval_seconds": 0.0}
    processes = start_together("parallel", home, out, target=until_asked, run=saved_often)
    while not was_trained(state_path(out)) and processes[0].exitcode is None:
        processes[0].join(0.01)
    os.kill(processes[1].pid, signal.SIGKILL)
    assert ended(processes) == [130, -9]
    assert names(tmp_path) == ["run.metrics.jsonl", "run.resume"]
    train("parallel", home, out)
    same_losses(metrics(out), reference("parallel").metrics)


@pytest.mark.parametrize("case", ["parallel", slow("fine-tuned")])
def test_divergence_keeps_the_state_before_it(case, home, tmp_path):
    out = tmp_path / "run.safetensors"
    phase = "phase1" if case == "parallel" else "phase2"
    layer = {"learning_rate": 1e38, "gradient_clip": 0.0}
    assert ended(start_together(case, home, out, run=SHARDED, **{phase: layer})) == [5, 5]
    assert names(tmp_path) == ["run.metrics.jsonl", "run.resume"]


MODELS = {
    "residual": {},
    "gated": {"cell": "gated"},
    "mogrifier": {"cell": "mogrifier"},
    "gru": {"cell": "gru"},
    "hidden": {"options": {"hidden_dim": 10}},
    "blended": {"options": {"layernorm_mix": 0.5}},
    "bigrams": {"head_bigrams": 20},
}


def model_of(name, options=None, **shape):
    shape |= {"context_dim": 7, "embed_dim": 5, "layer_structure": [2, 1]}
    config = settings.resolve({"model": shape, "run": SHARDED})
    return LanguageModel(config.model, 11, cell=options, num_heads=2), config.run


def read(model, tokens):
    """What comes from embeddings and heads."""
    return [model.embed(tokens), *model.logits([torch.ones(2, 7)] * 2, tokens[:, 0])]


def compare(name, home, out, layers):
    """In one of two processes: a sharded model beside a whole one."""
    torch.set_num_threads(1)
    tokens = torch.arange(12).view(2, 6) % 11
    for through_time in (False, True):
        model, run = model_of(name, **MODELS[name])
        if model.bigrams is not None:
            count_bigrams(model.bigrams, tokens.flatten().numpy(), end_id=0, progress=Silent())
        before = [p.detach().clone() for p in model.parameters()]
        with sharded(model, run, CPU) as divided:
            assert all(map(is_dtensor, divided.parameters()))
            held = sum(p.to_local().numel() for p in divided.parameters())
            total = sum(p.numel() for p in model.parameters())
            assert held < 0.62 * total
            start_BC = torch.ones(2, 7)
            expected = rollout(model, tokens, start_BC)
            assert torch.allclose(rollout(divided, tokens, start_BC), expected, atol=1e-6)
            for each in (model, divided):
                if through_time:
                    with patch.object(dist, GATHER, wraps=getattr(dist, GATHER)) as gathers:
                        contexts, last = unroll(each, tokens, start_BC), tokens
                    # Of the embedding, and once of the blocks for all tokens.
                    assert gathers.call_count == (2 if each is divided else 0)
                else:
                    last = tokens[:, 0]
                    contexts = each.step(context=start_BC, token=each.embed(last))
                loss = sum(logits.square().mean() for logits in each.logits(contexts, last))
                loss.backward()
            norm = distributed.gradient_norm(list(divided.parameters()))
            for ours, theirs in zip(divided.parameters(), model.parameters(), strict=True):
                assert (ours.grad is None) == (theirs.grad is None)
                if theirs.grad is not None:
                    torch.testing.assert_close(full_tensor(ours.grad), theirs.grad)
            expected_norm = distributed.gradient_norm(list(model.parameters()))
            assert torch.allclose(norm, expected_norm, rtol=1e-5)
            with torch.no_grad():
                # What was gathered for the first is out of date for the second.
                for added in (0.0, 1.0):
                    for parameter in (*divided.parameters(), *model.parameters()):
                        parameter.add_(added)
                    torch.testing.assert_close(*(read(e, tokens) for e in (divided, model)))
                for parameter in model.parameters():
                    parameter.sub_(1.0)
        for old, new in zip(before, model.parameters(), strict=True):
            assert torch.allclose(new, old + 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_share_each_and_the_same_gradients(name, home, tmp_path):
    assert ended(start_together(name, home, tmp_path, target=compare)) == [0, 0]


def test_one_process_holds_everything():
    model, run = model_of("residual")
    with sharded(model, run, CPU) as trained:
        assert trained is model


def test_a_tied_head_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    config = settings.resolve({"model": {"tie_weights": True}, "run": SHARDED})
    model = LanguageModel(config.model, 11)
    with (
        pytest.raises(ConfigError, match="tied"),
        sharded(model, config.run, CPU),
    ):
        pass
