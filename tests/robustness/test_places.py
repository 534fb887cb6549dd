"""Full disks, limits on the size of files, and two runs that write the same place."""

import resource

import pytest
import torch
from safetensors import safe_open

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.run_state import State, save_state, state_path
from newllm_core.data.prepared import open_dataset
from newllm_core.errors import InputError
from newllm_core.files.lock import exclusive
from newllm_core.pipeline.trained import run_expand
from newllm_core.runtime.runlog import RunLog, metrics_path
from newllm_core.training.resume import Output
from tests.data.cases import Recorder
from tests.robustness import runs
from tests.robustness.runs import SERVER, content, metrics, names, start, train

SAVED_AT_EVERY_STEP = {"run": {"save_interval_seconds": 0.0}}


@pytest.fixture
def largest_file():
    """Limit the size of files of this process; what is longer fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_state_that_does_not_fit_leaves_the_one_before(tmp_path, largest_file):
    path = tmp_path / "run.resume"
    save_state(State({"a": torch.ones(10)}, {"step": 1}), path, {"run.seed": 0})
    largest_file(20_000)
    with pytest.raises(InputError, match=r"cannot write .*run.resume: .*free some space") as caught:
        save_state(State({"a": torch.ones(10_000)}, {"step": 2}), path, {"run.seed": 0})
    largest_file(resource.RLIM_INFINITY)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    with safe_open(path, framework="pt") as state:
        assert state.metadata()["values"] == '{"step": 1}'
    assert names(tmp_path) == ["run.resume"]


def test_a_run_whose_disk_is_full_goes_on_once_there_is_room(home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    interrupt("streams", home, out)
    before = state_path(out).read_bytes()
    process = SERVER.Process(target=_limited, args=("streams", home, out, len(before) // 2))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert names(tmp_path) == ["run.metrics.jsonl", "run.resume"]
    assert state_path(out).read_bytes() == before
    train("streams", home, out)
    assert content(out) == reference("streams").content
    assert metrics(out) == reference("streams").metrics


def test_a_run_whose_disk_is_full_from_the_start_leaves_nothing(home, tmp_path):
    out = tmp_path / "run.safetensors"
    process = SERVER.Process(target=_limited, args=("streams", home, out, 4000))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert names(tmp_path) == []


def _limited(case, home, out, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    runs.child(case, home, out, SAVED_AT_EVERY_STEP)


def interrupt(case, home, out):
    """Start a run and end it with SIGTERM once it was saved."""
    process = start(case, home, out, run={"save_interval_seconds": 0.02})
    while not state_path(out).exists() and process.exitcode is None:
        process.join(0.01)
    process.terminate()
    process.join()
    assert process.exitcode == 130


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one_and_the_state(
    home, reference, tmp_path, monkeypatch
):
    from newllm_core.checkpoint import format as checkpoints

    out = tmp_path / "run.safetensors"
    out.write_bytes(reference("streams").path.read_bytes())
    original = checkpoints.write_atomically

    def full(path, write):
        raise InputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(checkpoints, "write_atomically", full)
    with pytest.raises(InputError, match="No space left"):
        train("parallel", home, out, resume=False, overwrite=True, **SAVED_AT_EVERY_STEP)
    assert content(out) == reference("streams").content
    assert names(tmp_path) == ["run.metrics.jsonl", "run.resume", "run.safetensors"]
    monkeypatch.setattr(checkpoints, "write_atomically", original)
    train("parallel", home, out)
    assert content(out) == reference("parallel").content


def test_metrics_that_do_not_fit_are_one_line(tmp_path, largest_file):
    out = tmp_path / "run.safetensors"
    with RunLog(out) as log:
        log.write("epoch", epoch=1)
        largest_file(metrics_path(out).stat().st_size)
        with pytest.raises(InputError, match=r"cannot write .*run.metrics.jsonl: .*free some"):
            log.write("epoch", epoch=2)


def test_metrics_that_are_gone_are_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"run.metrics.jsonl has 0 lines, .* made 3: put the file"):
        RunLog(tmp_path / "run.safetensors", resume_after=3)
    assert names(tmp_path) == []


def test_a_second_run_of_the_same_place_is_refused(home, tmp_path, reference):
    out = tmp_path / "run.safetensors"
    with exclusive(out), pytest.raises(InputError, match="another newllm is writing") as caught:
        train("parallel", home, out)
    assert caught.value.exit_code == 3
    assert names(tmp_path) == []
    train("parallel", home, out)
    assert content(out) == reference("parallel").content


def test_expand_waits_for_nobody_and_replaces_nothing(home, tmp_path):
    out = tmp_path / "run.safetensors"
    base, data = checkpoints.load(home / "base.safetensors"), open_dataset(home / "data")
    watching = Recorder()
    with exclusive(out), pytest.raises(InputError, match="another newllm is writing"):
        run_expand(base, data, base.config, Output(out, progress=watching))
    assert watching.messages == []
    assert names(tmp_path) == []


def test_sigterm_saves_the_state(home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    interrupt("parallel", home, out)
    assert names(tmp_path) == ["run.metrics.jsonl", "run.resume"]
    train("parallel", home, out)
    assert content(out) == reference("parallel").content
