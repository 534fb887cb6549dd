"""Two processes make the steps of one, survive each other's end, and resume as any number."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from newllm_core.checkpoint.run_state import state_path
from newllm_core.training import resume
from tests.forked import start
from tests.robustness.runs import (
    CASES,
    COMMON,
    PHASE1,
    addresses,
    child,
    ended,
    metrics,
    names,
    same_losses,
    start_together,
    train,
)

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def flags(case, **more):
    layers = COMMON | CASES[case]
    settings = {f"{s}.{k}": v for s, values in layers.items() for k, v in values.items()} | more
    if case == "fine-tuned":  # flags without an effect are refused
        del settings["phase2.batch_tokens"]
    return [f"--set={key}={json.dumps(value).strip(chr(34))}" for key, value in settings.items()]


def command(case, home, out, *extra, **more):
    base = ["phase2", home / "base.safetensors"] if "phase2" in CASES[case] else ["phase1"]
    arguments = [*base, "--data", home / "data", "--out", out, *flags(case, **more), *extra]
    return list(map(str, arguments))


def run(*arguments, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TORCHRUN, "-m", "newllm_cli", *command(*arguments, **options)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("case", ["streams", "frozen", "fine-tuned"])
def test_two_processes_have_the_losses_of_one(case, home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    assert ended(start_together(case, home, out)) == [0, 0]
    same_losses(metrics(out), reference(case).metrics)
    assert names(tmp_path) == ["run.metrics.jsonl", "run.safetensors"]


@pytest.mark.parametrize("case", ["parallel", pytest.param("fine-tuned", marks=pytest.mark.slow)])
def test_the_command_line_in_two_processes(case, home, reference, tmp_path):
    out = tmp_path / "run.safetensors"
    done = run(case, home, out, "--json")
    same_losses(metrics(out), reference(case).metrics)
    assert json.loads(done.stdout)["checkpoint"] == str(out)
    assert names(tmp_path) == ["run.metrics.jsonl", "run.safetensors"]


@pytest.mark.parametrize("dead", [1, 0])
def test_a_dead_process_ends_the_run_and_one_process_goes_on(dead, home, tmp_path):
    out = tmp_path / "run.safetensors"
    arguments = command("streams", home, out, **{"phase1.max_iterations": 60})
    said = [tmp_path / f"{rank}.txt" for rank in range(2)]
    processes = [
        start(*arguments, cwd=home, stderr=path, environment=address | {"OMP_NUM_THREADS": "1"})
        for path, address in zip(said, addresses(), strict=True)
    ]
    left = processes[1 - dead]
    figures = out.with_name("run.metrics.jsonl")
    while not (figures.exists() and figures.stat().st_size):
        if processes[0].exitcode is not None:
            processes[1].join(10)  # what it says is the cause
            codes = [f"exit {process.exitcode}" for process in processes]
            pytest.fail("\n".join([*codes, *(path.read_text() for path in said)]))
        time.sleep(0.05)
    processes[dead].kill()
    left.join(100)
    err = said[1 - dead].read_text()
    assert left.exitcode == 130, err
    for path in said:
        path.unlink()
    lines = [line for line in err.splitlines() if line.startswith("newllm: ")]
    assert len(lines) == 1
    assert f"process {1 - dead} of 2 cannot reach another one" in lines[0]
    state = state_path(out)
    kept = "the state before is in" if dead else "the state saved last, if one was, is in"
    assert lines[0].endswith(f"; {kept} {state}")
    assert "--nproc-per-node=2 -m newllm_cli phase1" in err
    lock = [] if dead else [".run.safetensors.lock"]
    assert names(tmp_path) == [*lock, "run.metrics.jsonl", "run.resume"]
    with safe_open(state, framework="pt") as saved:
        assert all(torch.isfinite(saved.get_tensor(name).float()).all() for name in saved.keys())  # noqa: SIM118
        assert (json.loads(saved.metadata()["values"])["lines"] > 0) is bool(dead)
    train("streams", home, out, phase1={"max_iterations": 60})
    places = [(line["window"], line["iteration"]) for line in metrics(out)]
    assert places == [(1, i) for i in range(1, 61)] + [
        (2, i) for i in range(1, 1 + PHASE1["later_iterations"])
    ]
    assert names(tmp_path) == ["run.metrics.jsonl", "run.safetensors"]


def say(home, folder, *mistakes):
    """Exit codes and lines on stderr of two processes, each with its mistake."""
    folder.mkdir()
    said = [folder / f"{rank}.txt" for rank in range(2)]
    arguments = command("online", home, folder / "run.safetensors")
    processes = [
        start(
            *[word.replace(*mistake) for word in arguments],
            cwd=home,
            stderr=path,
            environment=address,
        )
        for path, address, mistake in zip(said, addresses(), mistakes, strict=True)
    ]
    processes[1].join(100)
    if mistakes[0] != mistakes[1]:
        processes[0].kill()  # as torchrun does in the end: they may not even have met
    codes = ended(processes)
    # Below torch 2.11 gloo says that it is connected.
    lines = [path.read_text().splitlines() for path in said]
    return codes, [[line for line in of if not line.startswith("[Gloo]")] for of in lines]


@pytest.mark.parametrize(
    ("mistake", "code", "words"),
    [
        (("/data", "/missing"), 3, "no prepared data at "),
        (("phase1.engine=online", "phase1.reg=missing"), 2, "unknown regularizer"),
    ],
)
def test_the_cause_is_said_once_whoever_sees_it(home, tmp_path, mistake, code, words):
    codes, said = say(home, tmp_path / "one", ("", ""), mistake)
    assert codes[1] == code, said
    assert [words in line for line in said[1]] == [True], said
    codes, said = say(home, tmp_path / "both", mistake, mistake)
    assert codes == [code, code], said
    assert [words in line for line in said[0] + said[1]] == [True], said


def remove_late(case, home, out, layers):
    """A run whose first process tidies up while the second tries whether it could write."""
    remove, touch = resume.remove_leftovers, Path.touch
    resume.remove_leftovers = lambda path: (time.sleep(0.2), remove(path))
    Path.touch = lambda path, **options: (time.sleep(0.5), touch(path, **options))
    train(case, Path(home), Path(out), resume=False, **layers)


def test_no_process_removes_what_another_tries_to_write(home, tmp_path):
    out = tmp_path / "run.safetensors"
    processes = start_together("online", home, out, target=remove_late)
    assert ended(processes) == [0, 0]


def other_settings_each(case, home, out, layers):
    """What the second process sees is another run."""
    child(case, home, out, layers | {"run": {"seed": torch.distributed.get_rank()}})


def test_processes_that_do_not_see_the_same_are_refused(home, tmp_path):
    out = tmp_path / "run.safetensors"
    assert ended(start_together("online", home, out, target=other_settings_each)) == [3, 3]
    assert names(tmp_path) == []
