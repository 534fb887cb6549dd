"""Runs that are killed at random moments and resumed make what an uninterrupted run makes."""

import random
import time

import pytest
from safetensors import safe_open

from newllm_core.checkpoint.run_state import state_path
from newllm_core.generation.state import save_state as save_text
from newllm_core.generation.writer import Tail
from newllm_core.runtime.runlog import metrics_path
from tests.generation.cases import make_model, session_of
from tests.robustness.runs import content, metrics, names, start

KILLED = ("parallel", "streams", "frozen", "fine-tuned")
SAVED_OFTEN = {"run": {"save_interval_seconds": 0.05}}


@pytest.fixture(scope="module")
def seconds(home, tmp_path_factory):
    """How long an undisturbed run of each case takes in a process of its own."""
    measured = {}

    def find(case):
        if case not in measured:
            taken = []
            for _ in range(2):  # the first one may start the server as well
                out = tmp_path_factory.mktemp("timed") / "run.safetensors"
                begun = time.monotonic()
                process = start(case, home, out, **SAVED_OFTEN)
                process.join()
                assert process.exitcode == 0
                taken.append(time.monotonic() - begun)
            measured[case] = min(taken)
        return measured[case]

    return find


def kill_and_resume(case, home, folder, expected, *, kills, seconds, seed):
    """Kill so many times, then let it finish; how many kills found a state to continue from."""
    chance = random.Random(seed)
    out, text = folder / "run.safetensors", folder / "run.state"
    save_text(session_of(make_model(9)), Tail(), text, identity="another", overwrite=False)
    saved = text.read_bytes()
    killed = resumable = 0
    while True:
        process = start(case, home, out, **SAVED_OFTEN)
        if killed < kills:
            process.join(chance.uniform(0.2 * seconds, 0.8 * seconds))
            if process.exitcode is None:
                process.kill()
        process.join()
        if process.exitcode == 0:
            assert content(out) == expected.content
            assert metrics(out) == expected.metrics
            assert names(folder) == ["run.metrics.jsonl", "run.safetensors", "run.state"]
            if killed == kills:
                return resumable
            out.unlink()
            metrics_path(out).unlink()
            continue
        assert process.exitcode == -9
        killed += 1
        resumable += state_path(out).exists()
        assert text.read_bytes() == saved
        nothing_is_torn(out, expected)


def nothing_is_torn(out, expected):
    if out.exists():
        assert content(out) == expected.content
    if state_path(out).exists():
        with safe_open(state_path(out), framework="np") as state:
            # The first one of frozen contexts has no moments of the optimizer yet.
            assert len([state.get_tensor(name) for name in state.keys()]) > 3  # noqa: SIM118
    if metrics_path(out).exists():
        whole = metrics_path(out).read_text().rpartition("\n")[0].splitlines()
        assert len(whole) <= len(expected.metrics)


@pytest.mark.parametrize("case", ["parallel", pytest.param("fine-tuned", marks=pytest.mark.slow)])
def test_killed_runs_end_as_if_nothing_had_happened(case, home, reference, tmp_path, seconds):
    expected = reference(case)
    kill_and_resume(case, home, tmp_path, expected, kills=1, seconds=seconds(case), seed=case)
    assert content(tmp_path / "run.safetensors") == expected.content


@pytest.mark.slow
def test_a_hundred_kills(home, reference, tmp_path, seconds, capsys):
    for case in KILLED:
        folder = tmp_path / case
        folder.mkdir()
        expected = reference(case)
        found = kill_and_resume(
            case, home, folder, expected, kills=25, seconds=seconds(case), seed=1
        )
        with capsys.disabled():
            print(f"\n{case}: 25 kills, {found} of them found a state; the end was the same")
        assert found > 5
