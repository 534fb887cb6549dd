"""What is in the way of a run is refused or swept, and what is finished stays."""

import dataclasses
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.run_state import state_path
from newllm_core.errors import ConfigError, InputError, Interrupted, PluginError
from newllm_core.generation.state import save_state as save_text
from newllm_core.generation.writer import Tail
from newllm_core.runtime.runlog import metrics_path
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.trainer import Phase2Trainer
from tests.generation.cases import session_of
from tests.robustness.runs import content, metrics, names, train


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
    base = checkpoints.load(home / "base.safetensors")
    config = dataclasses.replace(base.model.config, slow_decays=(0.9,))
    other = dataclasses.replace(base, config=dataclasses.replace(base.config, model=config))
    checkpoints.save(other, tmp_path / "base.safetensors", overwrite=True)
    with pytest.raises(ConfigError, match=r"model\.slow_decays was \[0\.8\], is \[0\.9\]"):
        train("frozen", tmp_path, out, model={"slow_decays": (0.9,)})


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
    (tmp_path / "other.resume").mkdir()  # nor does a folder become one
    with pytest.raises(InputError, match=r"other\.resume is not the state of a newllm run"):
        train("parallel", home, tmp_path / "other.safetensors", overwrite=True, resume=False)
    # A text's own ending is no business of a run.
    text = text.rename(out.with_suffix(".state"))
    train("parallel", home, out)
    assert text.read_bytes() == before


@pytest.mark.parametrize(
    ("layers", "error"),
    [
        ({"phase2": {"reg_weight": 0.1, "freeze_context": True}}, r"phase2.reg shapes contexts"),
        ({"phase2": {"reg": "covarience-ema"}}, "did you mean 'covariance-ema'"),
    ],
)
def test_a_mistake_costs_nothing_of_what_was_to_be_overwritten(
    home, tmp_path, stop_after, layers, error
):
    out = tmp_path / "run.safetensors"
    train("fine-tuned", home, out)
    stop_after(5)
    with pytest.raises(Interrupted):
        train("fine-tuned", home, out, resume=False, overwrite=True)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert state_path(out) in before
    with pytest.raises(ConfigError, match=error):
        train("fine-tuned", home, out, resume=False, overwrite=True, **layers)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("unfinished", [False, True])
def test_what_ends_before_it_began_costs_nothing_of_what_was_to_be_overwritten(
    home, tmp_path, stop_after, monkeypatch, unfinished
):
    out = tmp_path / "run.safetensors"
    train("frozen", home, out)
    if unfinished:
        stop_after(25)
        with pytest.raises(Interrupted):
            train("frozen", home, out, resume=False, overwrite=True)
    before = contents(tmp_path)
    assert (state_path(out).name in before) is unfinished
    monkeypatch.setattr(Phase2Trainer, "open_source", failing(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train("frozen", home, out, resume=False, overwrite=True)
    assert contents(tmp_path) == before
    new = tmp_path / "new" / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train("frozen", home, new)
    assert contents(new.parent) == {}


def failing(error):
    def fail(*arguments, **options):
        raise error("it fails")

    return fail


def test_a_first_step_that_fails_leaves_the_run_before_and_its_figures(home, tmp_path, monkeypatch):
    out = tmp_path / "run.safetensors"
    train("parallel", home, out)
    before = contents(tmp_path)
    monkeypatch.setattr(Phase1Trainer, "make_step", failing(PluginError))
    with pytest.raises(PluginError, match=r"^it fails$"):
        train("parallel", home, out, resume=False, overwrite=True)
    assert contents(tmp_path) == before


def test_a_first_step_that_fails_leaves_nothing_of_an_unfinished_run_that_it_replaces(
    home, tmp_path, stop_after, monkeypatch
):
    out = tmp_path / "run.safetensors"
    stop_after(25)
    with pytest.raises(Interrupted):
        train("parallel", home, out)
    assert metrics(out)
    monkeypatch.setattr(Phase1Trainer, "make_step", failing(PluginError))
    with pytest.raises(PluginError, match=r"^it fails$"):
        train("parallel", home, out, resume=False, overwrite=True)
    assert contents(tmp_path) == {}


def test_a_folder_that_vanishes_does_not_hide_what_went_wrong(home, tmp_path, monkeypatch):
    out = tmp_path / "new" / "run.safetensors"

    def vanish(*arguments, **options):
        shutil.rmtree(out.parent)
        raise PluginError("it fails")

    monkeypatch.setattr(Phase1Trainer, "make_step", vanish)
    with pytest.raises(PluginError, match=r"^it fails$"):
        train("parallel", home, out)


def test_a_finished_run_whose_checkpoint_was_altered_is_not_called_another_one(home, tmp_path):
    out = tmp_path / "run.safetensors"
    train("parallel", home, out)
    tensors = load_file(out)
    tensors["embedding.weight"][0, 0] += 1
    with safe_open(out, "pt") as file:
        save_file(tensors, out, file.metadata())
    with pytest.raises(InputError, match="is not as newllm wrote it") as caught:
        train("parallel", home, out)
    assert "--overwrite without --resume" in str(caught.value)


def test_a_run_without_figures_keeps_none_of_the_run_before(home, tmp_path):
    out = tmp_path / "run.safetensors"
    train("parallel", home, out)
    assert metrics(out)
    train("parallel", home, out, resume=False, overwrite=True, phase1={"max_iterations": 0})
    assert metrics(out) == []
