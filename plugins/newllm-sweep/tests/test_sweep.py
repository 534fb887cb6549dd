"""Trials by stand-ins of newllm: shared, killed, pruned, failed, compared; one by newllm itself."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import newllm_sweep.worker as worker
import pytest
import stand_in
from newllm_sweep.launch import submit
from newllm_sweep.plan import read_plan
from newllm_sweep.report import sweep_page, sweep_report, write_best
from newllm_sweep.study import Trials
from stand_in import PLAN
from typer.testing import CliRunner

from newllm_cli.app import app
from newllm_core.errors import ConfigError, InputError
from newllm_core.runtime.progress import Silent


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def stand_in_runs(monkeypatch):
    monkeypatch.setattr(worker, "NEWLLM", (sys.executable, stand_in.__file__))
    monkeypatch.setattr(worker, "SECONDS_BETWEEN_LOOKS", 0.02)


def swept(text, folder):
    path = folder / "plan.toml"
    path.write_text(text)
    plan = read_plan(path)
    trials = Trials(plan, folder / "out")
    worker.work(plan, trials, Silent())
    return plan, trials, sweep_report(plan, trials)


def shape(report):
    return [(t["number"], t["state"], t["parameters"], t["figures"]) for t in report["trials"]]


def start(command, folder):
    return subprocess.Popen(command, start_new_session=True, cwd=folder)


def finish_after_two_kills_each(command, folder, *, seconds, whole_group):
    """Two processes, both killed twice, then both until the end."""
    for _ in range(2):
        pair = [start(command, folder) for _ in range(2)]
        for process, wait in zip(pair, (seconds, seconds / 2), strict=True):
            time.sleep(wait)
            kill = os.killpg if whole_group else os.kill
            kill(process.pid, signal.SIGKILL)
            process.wait()
    pair = [start(command, folder) for _ in range(2)]
    assert [process.wait(600) for process in pair] == [0, 0]


@pytest.mark.parametrize("whole_group", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_killed_twice_run_every_trial_once(
    plan_file, tmp_path, stand_in_runs, whole_group
):
    command = [sys.executable, stand_in.__file__, str(plan_file), "out"]
    finish_after_two_kills_each(command, tmp_path, seconds=2.5, whole_group=whole_group)
    plan = read_plan(plan_file)
    shared = Trials(plan, tmp_path / "out")
    found = sweep_report(plan, shared)
    unbroken = Trials(plan, tmp_path / "unbroken")
    worker.work(plan, unbroken, Silent())
    expected = sweep_report(plan, unbroken)
    assert [t["number"] for t in found["trials"]] == list(range(12))
    assert shape(found) == shape(expected)
    assert found["best"] == expected["best"]
    assert len({t["parameters"]["phase1.dist_reg_weight"] for t in found["trials"]}) == 12
    # What was complete is not run again: at most one trial was lost for each kill.
    runs = sum(len(path.read_text().split()) for path in tmp_path.glob("out/*/runs"))
    assert 12 <= runs <= 16


def test_best_settings_and_page(tmp_path, stand_in_runs):
    plan, trials, report = swept(PLAN.replace("12", "5"), tmp_path)
    weights = [t["parameters"]["phase1.dist_reg_weight"] for t in report["trials"]]
    assert report["best"] == [min(range(5), key=lambda place: abs(weights[place] - 0.5))]
    (path,) = write_best(plan, trials)
    saved = tomllib.loads(path.read_text())
    assert saved["phase1"]["dist_reg_weight"] == weights[report["best"][0]]
    assert isinstance(saved["phase1"]["max_iterations"], int)
    page = sweep_page(report, plan)
    assert page.count("<figure") == 3  # by trial, and by each of two parameters
    assert "http:" not in page.replace("http://www.w3.org", "")
    assert "https:" not in page
    more = PLAN.replace("12", "6")
    _, _, grown = swept(more, tmp_path)
    assert shape(grown)[:5] == shape(report)
    with pytest.raises(ConfigError, match="trials of another sweep"):
        swept(more.replace("0.8 }", "0.7 }"), tmp_path)


def test_a_grid_makes_every_combination_once(tmp_path, stand_in_runs):
    choices = {"{ low = 0.1, high = 0.8 }": "[0.2, 0.5, 0.7]", "{ low = 2, high = 6 }": "[3, 4]"}
    text = PLAN.replace("trials = 12", 'sampler = "grid"')
    for bounds, listed in choices.items():
        text = text.replace(bounds, listed)
    _, _, report = swept(text, tmp_path)
    tried = [tuple(trial["parameters"].values()) for trial in report["trials"]]
    assert tried == [(weight, count) for weight in (0.2, 0.5, 0.7) for count in (3, 4)]
    weights = [number / 1000 for number in range(100, 600)]
    large = text.replace("[0.2, 0.5, 0.7]", f"{weights}").replace("[3, 4]", f"{[*range(2, 300)]}")
    with pytest.raises(ConfigError, match="at most 100000"):
        swept(large, tmp_path)


def test_processes_that_learn_do_not_begin_alike(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.replace("[search]", '[search]\nsampler = "tpe"'))
    plan = read_plan(tmp_path / "plan.toml")
    processes = [Trials(plan, tmp_path / "out") for _ in range(2)]
    drawn = []
    for trials in processes * 3:
        with trials.take() as (trial, _):
            drawn.append(trial.suggest_float("phase1.dist_reg_weight", 0.1, 0.8))
            trials.tell(trial, [1.0], violations=[0.5])
    assert len(set(drawn)) == len(drawn) == 6
    assert processes[0].best() == []


def test_several_objectives_and_constraints_give_a_front(tmp_path, stand_in_runs):
    text = PLAN.replace("12", "8") + '"phase1.size.0" = "maximize"\n'
    text += '[constraints]\n"analyze.weight" = { above = 0.3 }\n'
    plan, trials, report = swept(text, tmp_path)
    rows = [
        (t["number"], t["figures"]["phase1.loss"], t["figures"]["phase1.size.0"])
        for t in report["trials"]
        if t["parameters"]["phase1.dist_reg_weight"] >= 0.3
    ]
    assert len(rows) < 8
    front = [
        n
        for n, loss, size in rows
        if not any(a <= loss and b >= size and (a, b) != (loss, size) for _, a, b in rows)
    ]
    assert report["best"] == front
    assert 0 < len(front) < len(rows)
    (beaten, *_) = {number for number, _, _ in rows} - set(front)
    (trials.folder / f"best-{beaten:04d}.toml").write_text("# the best one of an earlier call")
    own = trials.folder / "best-by-hand.toml"
    own.write_text("")
    assert {*write_best(plan, trials), own} == set(trials.folder.glob("best*.toml"))
    assert len(front) == len(list(trials.folder.glob("best-0*.toml")))


def test_a_trial_that_does_badly_is_ended_early(tmp_path, stand_in_runs):
    text = PLAN.replace("12", "10").replace("low = 2, high = 6", "low = 20, high = 21")
    text += '[pruning]\nrun = "phase1"\nfigure = "iteration.terms.loss"\nafter = 2\n'
    _, _, report = swept(text, tmp_path)
    states = [t["state"] for t in report["trials"]]
    assert {"pruned", "complete"} == set(states)
    weights = {s: [] for s in states}
    for trial in report["trials"]:
        weights[trial["state"]].append(trial["parameters"]["phase1.dist_reg_weight"])
    assert min(weights["pruned"]) > min(weights["complete"])
    pruned = states.index("pruned")
    lines = Path(report["trials"][pruned]["folder"], "phase1.metrics.jsonl").read_text()
    assert len(lines.splitlines()) < 20


def test_a_failed_trial_says_why_and_others_go_on(tmp_path, stand_in_runs):
    text = PLAN.replace("12", "6").replace(
        '"phase1.max_iterations"',
        '"phase1.reg" = ["none", "ema-variance"]\n"phase1.max_iterations"',
    )
    _, _, report = swept(text, tmp_path)
    for trial in report["trials"]:
        failed = trial["parameters"]["phase1.reg"] == "none"
        assert trial["state"] == ("fail" if failed else "complete")
        assert (trial["failure"] is None) != failed
    reasons = {t["failure"] for t in report["trials"]} - {None}
    assert reasons == {"newllm phase1: newllm: diverged at step 3"}


def test_what_no_setting_mends_stops_the_sweep_and_is_taken_up_again(tmp_path, stand_in_runs):
    text = PLAN.replace("12", "3").replace("low = 0.1, high = 0.8", "low = 0.86, high = 0.9")
    with pytest.raises(InputError, match=r"trial 0 stopped, see .*phase1.log: .*too much"):
        swept(text, tmp_path)
    plan = read_plan(tmp_path / "plan.toml")
    with Trials(plan, tmp_path / "out").take() as (trial, _):
        assert trial.number == 0


def test_a_figure_that_is_null_is_a_failure(tmp_path, stand_in_runs):
    _, _, report = swept(PLAN.replace("12", "1").replace("phase1.loss", "phase1.none"), tmp_path)
    assert report["trials"][0]["failure"] == "phase1.none is no finite number"


@pytest.mark.parametrize("figure", ["lost", "size", "size.1", "size.x", "loss.0"])
def test_a_figure_that_is_nowhere_ends_the_sweep_before_more_is_lost(
    tmp_path, stand_in_runs, figure
):
    text = PLAN.replace("phase1.loss", f"phase1.{figure}")
    with pytest.raises(ConfigError, match=f"there is no number phase1.{figure} in the report"):
        swept(text, tmp_path)


def test_pruning_by_a_figure_that_never_comes_ends_the_sweep(tmp_path, stand_in_runs):
    text = PLAN + '[pruning]\nrun = "phase1"\nfigure = "iteration.terms.lost"\n'
    with pytest.raises(ConfigError, match=r"terms.lost: no such number in .*metrics.jsonl"):
        swept(text, tmp_path)


def test_a_folder_that_holds_no_sweep(plan_file, tmp_path):
    plan = read_plan(plan_file)
    with pytest.raises(InputError, match=r"cannot write .*plan.toml: .* is no folder"):
        Trials(plan, plan_file)
    for content in ("garbage\n", '{"op_code": 0}\n', "[1]\n"):
        (tmp_path / "journal.log").write_text(content)
        with pytest.raises(InputError, match=r"journal.log is damaged: choose another --out"):
            Trials(plan, tmp_path)


def test_jobs_run_newllm(tmp_path):
    (name,) = submit(["--version"], tmp_path, 1, {"timeout_min": 1}, cluster="local")
    said = tmp_path / f"{name}_0_log.out"
    for _ in range(1500):
        if said.exists() and "newllm 0." in said.read_text():
            break
        time.sleep(0.1)
    assert "newllm 0." in said.read_text()
    with pytest.raises(ConfigError, match=r"submitit refuses \[slurm\]"):
        submit(["--version"], tmp_path, 1, {"timeout": 1}, cluster="local")


SMALL = "--context-dim 16 --embed-dim 16 --max-iterations 2 --max-tokens 1000 --threads 1"
SMALL += " --set analysis.probe_tokens=512 --set analysis.probe_passages=4"
SMALL += " --set analysis.dynamics_steps=32 --set analysis.memory_lags=4"
REAL = f"""
commands = ["phase1 --data data {SMALL}"]
[search]
trials = 12
[parameters]
"phase1.dist_reg_weight" = {{ low = 0.1, high = 0.9 }}
"model.cell" = ["gru", "residual"]
[objectives]
"phase1.gate.validation.effective_rank_ratio" = "maximize"
[constraints]
"phase1.gate.validation.lyapunov_exponent" = {{ below = 0.0 }}
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n\n".join(f"row {n} says {n * n}, and no more than {n}" for n in range(300))
    Path("a.txt").write_text(text)
    arguments = ["prepare", "--source=text-file", "--input=a.txt", "--document-separator=\\n\\n"]
    made = CliRunner().invoke(app, [*arguments, "--vocab-size=300", "--out=data"])
    assert made.exit_code == 0, made.output


def test_newllm_itself(data):
    Path("real.toml").write_text(REAL.replace("12", "2"))
    done = CliRunner().invoke(app, ["sweep", "real.toml", "--json", "--html", "page.html"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [t["state"] for t in report["trials"]] == ["complete"] * 2
    for trial in report["trials"]:
        written = json.loads(Path(trial["folder"], "phase1.json").read_text())
        (figure,) = trial["figures"].values()
        assert figure == written["gate"]["validation"]["effective_rank_ratio"]
        exponent = written["gate"]["validation"]["lyapunov_exponent"]
        assert trial["allowed"] == (exponent <= 0)
    assert "<svg" in Path("page.html").read_text()
    refused = CliRunner().invoke(app, ["sweep", "real.toml", "--html", "page.html"])
    assert "page.html exists" in str(refused.exception)
    shown = CliRunner().invoke(app, ["sweep", "real.toml"])  # nothing is left to run
    assert "dist_reg_weight" in shown.stdout


@pytest.mark.slow
def test_newllm_itself_killed_twice(data, tmp_path):
    Path("real.toml").write_text(REAL)
    command = [sys.executable, "-m", "newllm_cli", "sweep", "real.toml", "--out", "out", "--json"]
    finish_after_two_kills_each(command, tmp_path, seconds=25, whole_group=False)
    plan = read_plan(Path("real.toml"))
    found = sweep_report(plan, Trials(plan, Path("out")))
    unbroken = Trials(plan, Path("unbroken"))
    worker.work(plan, unbroken, Silent())
    expected = sweep_report(plan, unbroken)
    assert [t["number"] for t in found["trials"]] == list(range(12))
    assert shape(found) == shape(expected)
    assert found["best"] == expected["best"]
