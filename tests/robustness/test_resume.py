"""A run that was stopped and resumed makes the same file, byte for byte, and the same metrics."""

import dataclasses
import json
import signal

import pytest
import torch
from safetensors import safe_open

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.run_state import state_path
from newllm_core.errors import DivergedError, Interrupted
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase1.vacuity import VacuityGuard
from newllm_core.training.phase2 import trainer as phase2
from newllm_core.training.phase2.steps import Steps
from newllm_core.training.phase2.trainer import Phase2Trainer
from tests.robustness.runs import CASES, content, metrics, names, train


@pytest.mark.parametrize("case", CASES)
def test_n_and_m_steps_are_n_plus_m(case, home, reference, tmp_path, stop_after):
    expected = reference(case)
    out = tmp_path / "run.safetensors"
    # Each stop is so many steps after the one before: windows, epochs and their ends are met.
    for steps in (1, 2, 8, 10, 9):
        stop_after(steps)
        with pytest.raises(Interrupted):
            train(case, home, out)
        assert names(tmp_path) == ["run.metrics.jsonl", "run.resume"]
    with safe_open(state_path(out), framework="pt") as state:
        twins = [name for name in state.keys() if ".twin_" in name]  # noqa: SIM118
    assert len(twins) == (4 if case == "twins" else 0)
    stop_after(0)
    train(case, home, out)
    assert content(out) == expected.content
    assert metrics(out) == expected.metrics
    assert names(tmp_path) == ["run.metrics.jsonl", "run.safetensors"]


@pytest.mark.parametrize("case", ["parallel", "fine-tuned"])
def test_measurements_between_steps_can_be_interrupted(
    case, home, reference, tmp_path, monkeypatch
):
    out = tmp_path / "run.safetensors"
    module, name = {
        "parallel": ("phase1.measure", "model_figures"),
        "fine-tuned": ("phase2.measure", "evaluate_splits"),
    }[case]
    owner = __import__(f"newllm_core.training.{module}", fromlist=[name])
    original = getattr(owner, name)
    for call in (1, 2):
        calls = []

        def signalled(*arguments, calls=calls, call=call, **options):
            calls.append(1)
            result = original(*arguments, **options)
            if len(calls) == call:
                signal.raise_signal(signal.SIGTERM)
            return result

        monkeypatch.setattr(owner, name, signalled)
        with pytest.raises(Interrupted):
            train(case, home, out)
        assert len(calls) == call
    with safe_open(state_path(out), framework="pt") as state:
        values = json.loads(state.metadata()["values"])
    assert values.get("step", values["meter"]["batches"]) > 0  # not the state it began with
    monkeypatch.setattr(owner, name, original)
    train(case, home, out)
    assert content(out) == reference(case).content
    assert metrics(out) == reference(case).metrics


def test_measuring_health_behind_the_last_window_can_be_interrupted(
    home, reference, tmp_path, monkeypatch
):
    out = tmp_path / "run.safetensors"

    def signalled(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")

    with monkeypatch.context() as patch:
        patch.setattr("newllm_core.pipeline.runs.measure_health", signalled)
        for _ in range(2):  # also where it goes on from there
            with pytest.raises(Interrupted):
                train("parallel", home, out)
    train("parallel", home, out)
    assert content(out) == reference("parallel").content
    assert metrics(out) == reference("parallel").metrics


@pytest.mark.parametrize("case", ["parallel", "twins"])
def test_a_reading_of_validation_text_can_be_interrupted(
    case, home, reference, tmp_path, monkeypatch
):
    expected, out = reference(case), tmp_path / "run.safetensors"
    make_step, calls = Phase1Trainer.make_step, []

    def signalled(self, window, *arguments):
        make_step(self, window, *arguments)
        if window is self.windows.validation:
            calls.append(self.windows.number)
            if calls == [0, 0, 0, 1, 1]:  # trained in the second window, and read to the end
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Phase1Trainer, "make_step", signalled)
    with pytest.raises(Interrupted):
        train(case, home, out)
    train(case, home, out)
    assert content(out) == expected.content
    assert metrics(out) == expected.metrics


def test_the_best_epoch_is_still_the_best_after_a_stop_in_a_later_one(
    home, tmp_path, monkeypatch, stop_after
):
    monkeypatch.setattr(Phase2Trainer, "_loss_of", lambda self, epoch: (3.0, 1.0, 2.0)[epoch])
    whole, out = tmp_path / "whole.safetensors", tmp_path / "run.safetensors"
    train("frozen", home, whole)
    stop_after(25)  # in the second epoch of two, of 20 batches each
    with pytest.raises(Interrupted):
        train("frozen", home, out)
    stop_after(0)
    assert train("frozen", home, out).results["best_epoch"] == 1
    assert content(out) == content(whole)


def test_a_term_that_pulled_before_a_stop_is_not_vacuous_after_it(
    home, tmp_path, monkeypatch, stop_after
):
    out = tmp_path / "run.safetensors"
    stop_after(12)
    with pytest.raises(Interrupted):
        train("parallel", home, out)
    stop_after(0)
    monkeypatch.setattr(VacuityGuard, "norm_of", lambda self, term: torch.zeros(()))
    done = train("parallel", home, out)
    assert set(done.history[-1]["gradient_norms"].values()) == {0.0}
    assert done.vacuous_terms == []


@pytest.mark.parametrize("interval", [1, 7])
@pytest.mark.parametrize("case", ["parallel", "streams", "fine-tuned", "frozen"])
def test_divergence_keeps_the_state_before_it(
    case, interval, home, reference, tmp_path, monkeypatch
):
    """Resumed without what broke it, it goes on as if it had never been broken."""
    out = tmp_path / "run.safetensors"
    calls = []
    terms_of, make = Phase1Loss.of_batch, Steps.make

    def poisoned(self, *arguments):
        terms = terms_of(self, *arguments)
        calls.extend([1] * terms.total.requires_grad)
        # Those of a step, and once more those that are asked whose gradient it was.
        if len(calls) in (18, 19) and terms.total.requires_grad:
            weighted = {name: term * float("nan") for name, term in terms.weighted.items()}
            terms = dataclasses.replace(terms, weighted=weighted)
        return terms

    def poisoned_step(self, terms):
        calls.append(1)
        if len(calls) == 18:
            terms = dataclasses.replace(terms, total=terms.total * float("nan"))
        make(self, terms)

    monkeypatch.setattr(Phase1Loss, "of_batch", poisoned)
    monkeypatch.setattr(Steps, "make", poisoned_step)
    monkeypatch.setattr(phase2, "STEPS_LOGGED", 1)
    run = {"check_interval_steps": interval}
    with pytest.raises(
        DivergedError, match=r"the gradient of .* is not finite.*run.resume"
    ) as caught:
        train(case, home, out, run=run)
    assert caught.value.exit_code == 5
    with safe_open(state_path(out), framework="pt") as state:
        values = json.loads(state.metadata()["values"])
        assert all(state.get_tensor(key).isfinite().all() for key in state.keys())  # noqa: SIM118
    assert values.get("step", values["meter"]["batches"]) > 0
    train(case, home, out, run=run)
    assert names(tmp_path) == ["run.metrics.jsonl", "run.safetensors"]
    assert content(out) == reference(case).content


@pytest.mark.parametrize("case", ["streams", "without-dropout"])  # devices draw other numbers
def test_a_run_goes_on_where_it_was_on_another_device(
    device, case, home, reference, tmp_path, stop_after
):
    out = tmp_path / "run.safetensors"
    stop_after(20)  # of a window 13 batches are only read
    with pytest.raises(Interrupted):
        train(case, home, out, device=device, run={"check_interval_steps": 1})
    with safe_open(state_path(out), framework="pt") as state:
        assert any(name.startswith("optimizer.") for name in state.keys())  # noqa: SIM118
    stop_after(0)
    train(case, home, out)
    if device.type == "cpu":
        assert content(out) == reference(case).content
    ours, others = (
        checkpoints.load(path).model.state_dict() for path in (out, reference(case).path)
    )
    for name, value in ours.items():
        torch.testing.assert_close(value, others[name], rtol=1e-2, atol=1e-3)
