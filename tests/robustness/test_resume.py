"""A run that was stopped and resumed makes the same file, byte for byte, and the same metrics."""

import dataclasses
import json
import shutil
import signal

import pytest
import torch
from safetensors import safe_open

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.run_state import state_path
from newllm_core.errors import ConfigError, DivergedError, InputError, Interrupted
from newllm_core.generation.state import save_state as save_text
from newllm_core.generation.writer import Tail
from newllm_core.runtime.runlog import metrics_path
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.vacuity import VacuityGuard
from newllm_core.training.phase2 import trainer as phase2
from newllm_core.training.phase2.steps import Steps
from newllm_core.training.phase2.trainer import Phase2Trainer
from newllm_core.training.saver import RunSaver
from tests.generation.cases import session_of
from tests.robustness.runs import CASES, content, metrics, names, train


class Messages:
    """Progress that keeps what it is told."""

    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)

    warning = message

    def task(self, label, total, unit):
        from newllm_core.runtime.progress import Silent

        return Silent().task(label, total, unit)


@pytest.fixture
def stop_after(monkeypatch):
    """Ask a run to stop at its n-th point, as a signal would; `points` counts them."""
    point = RunSaver.maybe_save

    def arrange(number):
        seen = []

        def counted(self, state):
            seen.append(number)
            if len(seen) == number:
                self.interruption.asked = True
            point(self, state)

        monkeypatch.setattr(RunSaver, "maybe_save", counted)
        return seen

    return arrange


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
    monkeypatch.setattr(owner, name, original)
    train(case, home, out)
    assert content(out) == reference(case).content
    assert metrics(out) == reference(case).metrics


def test_nothing_to_resume_starts_afresh_and_a_finished_run_stays(home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    progress = Messages()
    train("parallel", home, out, progress=progress)
    assert any("starting afresh" in text for text in progress.texts)
    before = out.stat()
    progress = Messages()
    done = train("parallel", home, out, progress=progress)
    assert any("finished" in text for text in progress.texts)
    assert done.history == reference("parallel").history
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_run_is_refused_key_by_key(home, tmp_path, stop_after):
    out = tmp_path / "run.safetensors"
    stop_after(9)
    with pytest.raises(Interrupted):
        train("parallel", home, out)
    before = state_path(out).read_bytes()
    other = {"phase1": {"learning_rate": 0.5, "max_iterations": 3}, "run": {"seed": 3}}
    with pytest.raises(ConfigError) as caught:
        train("parallel", home, out, **other)
    message = str(caught.value)
    assert "phase1.learning_rate was 0.002, is 0.5" in message
    assert "run.seed was 0, is 3" in message
    assert "max_iterations" not in message
    assert "\n" not in message
    # Where and how fast is nobody's business.
    with pytest.raises(InputError, match="unfinished run: pass --resume"):
        train("parallel", home, out, resume=False)
    assert state_path(out).read_bytes() == before
    stop_after(0)
    train("parallel", home, out, run={"device": "cpu", "threads": None})
    with pytest.raises(ConfigError, match=r"phase1.learning_rate was 0.002, is 0.5"):
        train("parallel", home, out, **other)


def test_other_data_are_refused(home, tmp_path, stop_after, monkeypatch):
    from newllm_core.data.prepared import PreparedDataset

    out = tmp_path / "run.safetensors"
    stop_after(3)
    with pytest.raises(Interrupted):
        train("parallel", home, out)
    stop_after(0)
    monkeypatch.setattr(PreparedDataset, "hash", "other")
    with pytest.raises(InputError, match=r"dataset was '.*', is 'other'"):
        train("parallel", home, out)


def test_an_older_checkpoint_is_replaced_only_by_the_run_that_was_told_to(
    home, reference, tmp_path, stop_after
):
    out = tmp_path / "run.safetensors"
    shutil.copy(reference("streams").path, out)
    stop_after(5)
    with pytest.raises(Interrupted):
        train("parallel", home, out, resume=False, overwrite=True)
    assert content(out) == reference("streams").content
    stop_after(0)
    train("parallel", home, out)
    assert content(out) == reference("parallel").content


@pytest.mark.parametrize("damage", ["short", "noise", "foreign"])
def test_a_state_that_cannot_be_read(home, tmp_path, damage, reference):
    out = tmp_path / "run.safetensors"
    whole = reference("parallel").path.read_bytes()
    content = {"short": whole[: len(whole) // 2], "noise": b"x" * 900, "foreign": whole}[damage]
    state_path(out).write_bytes(content)
    with pytest.raises(InputError, match=r"run.resume") as caught:
        train("parallel", home, out)
    assert "\n" not in str(caught.value)
    assert state_path(out).read_bytes() == content


def test_metrics_that_are_gone(home, tmp_path, stop_after):
    out = tmp_path / "run.safetensors"
    stop_after(25)
    with pytest.raises(Interrupted):
        train("parallel", home, out)
    assert len(metrics(out)) > 0
    metrics_path(out).write_text(metrics_path(out).read_text()[:-5])
    with pytest.raises(InputError, match=r"run.metrics.jsonl has \d+ lines"):
        train("parallel", home, out)


def test_what_killed_runs_left_is_swept(home, tmp_path):
    out = tmp_path / "run.safetensors"
    for left in (".run.safetensors.123.tmp", ".run.resume.99999.tmp", ".run.safetensors.lock"):
        if left.endswith(".tmp"):
            (tmp_path / left).mkdir()
            (tmp_path / left / ".tmpAbCdEf").write_bytes(b"half")
        else:
            (tmp_path / left).touch()
    (tmp_path / ".other.safetensors.123.tmp").write_bytes(b"somebody else's")
    train("parallel", home, out)
    assert names(tmp_path) == [
        ".other.safetensors.123.tmp",
        "run.metrics.jsonl",
        "run.safetensors",
    ]


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


def test_heads_of_one_checkpoint_are_not_continued_on_another(home, tmp_path, stop_after):
    out = tmp_path / "run.safetensors"
    stop_after(3)
    with pytest.raises(Interrupted):
        train("frozen", home, out)
    stop_after(0)
    (tmp_path / "data").symlink_to(home / "data")
    base = checkpoints.load(home / "base.safetensors")
    base.model.embedding.weight.data[0, 0] += 1e-3
    checkpoints.save(base, tmp_path / "base.safetensors", overwrite=False)
    with pytest.raises(InputError, match="initial weights was"):
        train("frozen", tmp_path, out)


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


@pytest.mark.parametrize("case", ["streams", "fine-tuned"])
def test_a_run_goes_on_where_it_was_on_another_device(
    device, case, home, reference, tmp_path, stop_after
):
    out = tmp_path / "run.safetensors"
    stop_after(12)
    with pytest.raises(Interrupted):
        train(case, home, out, device=device, run={"check_interval_steps": 1})
    stop_after(0)
    train(case, home, out)
    if device.type == "cpu":
        assert content(out) == reference(case).content
    ours, others = (
        checkpoints.load(path).model.state_dict() for path in (out, reference(case).path)
    )
    for name, value in ours.items():
        torch.testing.assert_close(value, others[name], rtol=1e-2, atol=1e-3)


def test_figures_of_a_finished_run_stay_when_its_checkpoint_is_gone(home, tmp_path):
    out = tmp_path / "run.safetensors"
    train("parallel", home, out)
    before = metrics_path(out).read_bytes()
    out.rename(tmp_path / "kept.safetensors")
    for again in (False, True):
        with pytest.raises(InputError, match=r"run\.metrics\.jsonl holds the figures"):
            train("parallel", home, out, resume=again)
    assert metrics_path(out).read_bytes() == before
    train("parallel", home, out, resume=False, overwrite=True)


def test_a_text_under_the_name_of_a_state_stays(home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    text = state_path(out)
    checkpoint = checkpoints.load(reference("fine-tuned").path)
    saved = {"identity": checkpoint.identity(), "overwrite": False}
    save_text(session_of(checkpoint.model), Tail(), text, **saved)
    before = text.read_bytes()
    for options in ({"overwrite": True, "resume": False}, {"resume": True}):
        with pytest.raises(InputError, match=r"run\.resume is not the state of a newllm run"):
            train("parallel", home, out, **options)
    assert text.read_bytes() == before
    # A text's own ending is no business of a run.
    text = text.rename(out.with_suffix(".state"))
    train("parallel", home, out)
    assert text.read_bytes() == before
