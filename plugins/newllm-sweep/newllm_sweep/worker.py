"""One process of a sweep: takes trials, runs their commands, and tells what came of them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from newllm_core.errors import ConfigError, DivergedError, GateRefused, InputError, one_line
from newllm_core.files.strict_json import is_number
from newllm_core.runtime.progress import Progress
from newllm_core.runtime.runlog import metrics_path
from newllm_sweep.plan import WRITES, Plan, assignment, suggest
from newllm_sweep.study import Trials

NEWLLM = (sys.executable, "-m", "newllm_cli")
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_WAIT = 1.0
# What settings can bring about, so that others are worth a try.
FAILURES = (ConfigError.exit_code, DivergedError.exit_code, GateRefused.exit_code)


class Failed(Exception):
    """A trial that has no figures, and why."""


class Pruned(Exception):
    """A trial that was ended early."""


def work(plan: Plan, trials: Trials, progress: Progress) -> None:
    """Run trials until all are finished, by this process or others.

    Raises:
        InputError: a command failed in a way that no other setting would mend.
    """
    while True:
        with trials.take() as taken:
            if taken is not None:
                _run_trial(plan, trials, *taken, progress)
                continue
        left = [t.number for t in trials.all() if t.state == TrialState.RUNNING]
        if not left:
            return
        time.sleep(SECONDS_TO_WAIT)  # another process may be killed, and leave its trial


def _run_trial(plan: Plan, trials: Trials, trial: Trial, lock: int, progress: Progress) -> None:
    chosen = {key: suggest(trial, key, values) for key, values in plan.parameters.items()}
    told = ", ".join(assignment(key, value) for key, value in chosen.items())
    progress.message(f"trial {trial.number} of {plan.search.trials}: {told}")
    run = TrialRun(plan, trials.folder_of(trial), trial, chosen, lock)
    try:
        reports = {words[0]: run.report(words) for words in plan.commands}
        values = [figure_at(reports, place) for place in plan.objectives]
        violations = [
            figure_at(reports, place) - bound
            if way == "below"
            else bound - figure_at(reports, place)
            for place, bounds in plan.constraints.items()
            for way, bound in bounds.items()
        ]
    except Failed as error:
        progress.warning(f"trial {trial.number}: {error}")
        trials.tell(trial, None, failure=str(error))
    except Pruned:
        progress.message(f"trial {trial.number}: ended early")
        trials.tell(trial, None, pruned=True)
    else:
        shown = ", ".join(f"{n} = {v:.6g}" for n, v in zip(plan.objectives, values, strict=True))
        progress.message(f"trial {trial.number}: {shown}")
        trials.tell(trial, values, violations=violations)


class TrialRun:
    """The commands of one trial, each in its own process.

    Args:
        plan: of the sweep.
        folder: of the trial.
        trial: of the study.
        chosen: value of each parameter.
        lock: descriptor that commands hold too, so that a trial is not taken from a command that
            survives this process.
    """

    def __init__(
        self, plan: Plan, folder: Path, trial: Trial, chosen: Mapping[str, Any], lock: int
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._trial = trial
        self._lock = lock
        self._set = [f"--set={assignment(key, value)}" for key, value in chosen.items()]
        written = {name: str(folder / file) for name, (file, _) in WRITES.items()}
        self._places = {"trial": str(folder), **written}

    def report(self, words: list[str]) -> Any:  # noqa: ANN401 - any JSON
        """Return what a command prints with --json; it is not run again if it did so before.

        Raises:
            Failed: it ended with an error that settings may bring about.
            Pruned: it was ended early.
            InputError: it ended with another error.
        """
        name = words[0]
        done = self._folder / f"{name}.json"
        if not done.exists():
            printed = done.with_suffix(".part")
            with printed.open("wb") as out:
                self._run(name, [word.format_map(self._places) for word in words], out)
            os.replace(printed, done)
        return json.loads(done.read_text(encoding="utf-8"))

    def _run(self, name: str, words: list[str], out: Any) -> None:  # noqa: ANN401 - a file
        command = [*NEWLLM, *words, *self._set, "--json"]
        if name in WRITES:
            command += [f"--out={self._places[name]}", WRITES[name][1]]
        log = self._folder / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                command, stdout=out, stderr=errors, pass_fds=(self._lock,), stdin=subprocess.DEVNULL
            )
            try:
                self._watch(name, process)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            why = one_line(f"newllm {name}: {said[-1] if said else 'nothing was said'}", 300)
            if process.returncode in FAILURES:
                raise Failed(why)
            raise InputError(f"trial {self._trial.number} stopped, see {log}: {why}")

    def _watch(self, name: str, process: subprocess.Popen[bytes]) -> None:
        pruning = self._plan.pruning
        if pruning is None or name != pruning.run:
            process.wait()
            return
        figures = metrics_path(Path(self._places[name]))
        reported = 0
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_LOOKS)
            values = intermediate(figures, pruning.figure)
            for step in range(reported, len(values)):
                self._trial.report(values[step], step)
            if process.poll() is None and len(values) > reported and self._trial.should_prune():
                raise Pruned
            reported = len(values)
        if process.returncode == 0 and not reported:
            raise ConfigError(f"pruning.figure {pruning.figure}: no such number in {figures}")


def intermediate(path: Path, figure: str) -> list[float]:
    """Return every value so far of EVENT.PLACE in a .metrics.jsonl."""
    event, _, place = figure.partition(".")
    found = []
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if line.endswith(b"\n") and (told := json.loads(line))["event"] == event:
            with suppress(LookupError):
                found.append(_at(told, place))
    return [value for value in found if value is not None]


def figure_at(reports: Mapping[str, Any], place: str) -> float:
    """Return the figure COMMAND.PLACE.

    Raises:
        Failed: it is null, of something that was not finite.
        ConfigError: there is no such figure: no trial would have it.
    """
    try:
        value = _at(reports, place)
    except LookupError as error:
        raise ConfigError(f"there is no number {place} in the report") from error
    if value is None:
        raise Failed(f"{place} is no finite number")
    return value


def _at(value: Any, place: str) -> float | None:  # noqa: ANN401 - any JSON
    for part in place.split("."):
        if isinstance(value, list):
            value = {str(number): inner for number, inner in enumerate(value)}
        if not isinstance(value, dict):
            raise LookupError(place)
        value = value[part]
    if value is not None and not is_number(value):
        raise LookupError(place)
    return value
