"""The TOML file of a sweep: what is tried, what is run, what counts."""

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from newllm_core import settings
from newllm_core.config import option
from newllm_core.config.option import Section
from newllm_core.errors import ConfigError, reason
from newllm_core.files.from_strangers import read_text
from newllm_core.files.strict_json import is_number

DIRECTIONS = ("minimize", "maximize")
# What a command writes into the folder of a trial, and how it goes on where it was killed.
WRITES = {
    "prepare": ("data", "--overwrite"),
    "phase1": ("phase1.safetensors", "--resume"),
    "phase2": ("phase2.safetensors", "--resume"),
    "expand": ("expanded.safetensors", "--overwrite"),
}
READS = ("analyze", "evaluate")


@dataclass(frozen=True)
class Search(Section, name="search"):
    """How parameters are chosen."""

    trials: int = option(20, "All in all; a grid has as many as it has.", low=1, high=100_000)
    seed: int = option(0, "Of what is tried.", low=0)
    sampler: str = option(
        "random",
        "random: the same trials whoever runs them; grid: every combination of choices; tpe: "
        "learns from those that are done.",
        choices=("random", "grid", "tpe"),
    )


@dataclass(frozen=True)
class Pruning(Section, name="pruning"):
    """When a trial that does badly is ended early."""

    run: str = option("phase2", "The command whose figures are watched.")
    figure: str = option(
        "epoch.validation.loss", "EVENT.PLACE in its .metrics.jsonl; better as for the objective."
    )
    after: int = option(3, "Figures of a trial, and trials, before any is ended.", low=0)


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        parameters: of each setting, a list of choices or its bounds (low, high, step, log).
        commands: words of each, run in this order.
        objectives: of each figure, whether it is to be large or small.
        constraints: of each figure, what it must be above or below.
        search: how parameters are chosen.
        pruning: None ends no trial early.
        slurm: parameters of submitit.
    """

    parameters: Mapping[str, Any]
    commands: list[list[str]]
    objectives: Mapping[str, str]
    constraints: Mapping[str, Mapping[str, float]]
    search: Search
    pruning: Pruning | None
    slurm: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Return a hash of what a trial is; there may be more trials later."""
        told: list[Any] = [self.parameters, self.commands, self.objectives, self.constraints]
        told += [self.search.seed, self.search.sampler]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        ConfigError: it is missing or no plan.
    """
    text = read_text(path, "sweep", limit=settings.LARGEST_FILE, error=ConfigError)
    try:
        given = settings.tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {reason(error)}") from error
    known = {"parameters", "commands", "objectives", "constraints", "search", "pruning", "slurm"}
    for key in given.keys() - known:
        raise ConfigError(f"{path}: unknown {key} (known: {', '.join(sorted(known))})")
    try:
        for key in given.keys() - {"commands"}:
            if not isinstance(given[key], dict):
                raise ConfigError(f"{key} is no table: write [{key}] and its lines below")
        return _plan(given)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _plan(given: Mapping[str, Any]) -> Plan:
    for key in ("parameters", "objectives"):
        if not given.get(key):
            raise ConfigError(f"[{key}] is missing: it has at least one")
    for key, values in given["parameters"].items():
        _check_parameter(key, values)
    commands = _commands(given.get("commands"))
    names = [words[0] for words in commands]
    for figure, direction in given["objectives"].items():
        _check_figure(figure, names)
        if direction not in DIRECTIONS:
            raise ConfigError(f"objectives.{figure} is {direction!r}: {' or '.join(DIRECTIONS)}")
    for figure, bound in given.get("constraints", {}).items():
        _check_figure(figure, names)
        numbers = isinstance(bound, dict) and all(map(_is_finite, bound.values()))
        if not (numbers and bound and bound.keys() <= {"above", "below"}):
            raise ConfigError(f"constraints.{figure}: write {{ below = 0.0 }}, above, or both")
    pruning = None
    if "pruning" in given:
        pruning = settings.make_section(Pruning, "pruning", given["pruning"])
        if len(given["objectives"]) > 1:
            raise ConfigError("[pruning] is for a single objective: leave one of them out")
        if pruning.run not in ("phase1", "phase2") or pruning.run not in names:
            raise ConfigError(f"pruning.run is {pruning.run!r}: a training command of this sweep")
        if "." not in pruning.figure:
            raise ConfigError(f"pruning.figure is {pruning.figure!r}: write EVENT.PLACE")
    return Plan(
        given["parameters"],
        commands,
        given["objectives"],
        given.get("constraints", {}),
        _search(given),
        pruning,
        given.get("slurm", {}),
    )


def _search(given: Mapping[str, Any]) -> Search:
    search = settings.make_section(Search, "search", given.get("search", {}))
    if search.sampler != "grid":
        return search
    if "trials" in given["search"]:
        raise ConfigError(
            "search.trials: a grid has as many as there are combinations, leave it out"
        )
    for key, values in given["parameters"].items():
        if not isinstance(values, list):
            raise ConfigError(f"parameters.{key}: a grid takes a list of choices")
    return replace(search, trials=math.prod(map(len, given["parameters"].values())))


def _check_parameter(key: str, values: Any) -> None:  # noqa: ANN401 - any TOML
    if (
        isinstance(values, list)
        and values
        and all(type(v) in (str, bool, int, float) for v in values)
    ):
        examples = values
    else:
        bounds = isinstance(values, dict) and values.keys() <= {"low", "high", "step", "log"}
        if (
            not bounds
            or not all(_is_finite(v) for place, v in values.items() if place != "log")
            or not isinstance(values.get("log", False), bool)
            or not {"low", "high"} <= values.keys()
            or not values["low"] < values["high"]
        ):
            raise ConfigError(
                f"parameters.{key}: write a list of choices, or {{ low = 1, high = 9 }} and "
                "step or log = true if need be"
            )
        examples = [values["low"], values["high"], values["low"] + values.get("step", 0)]
        try:
            suggest(FixedTrial({key: values["low"]}), key, values)
        except ValueError as error:  # such as a logarithm of 0
            raise ConfigError(f"parameters.{key}: {reason(error)}") from error
    for value in examples:  # a mistyped key or bound is found before anything runs
        settings.resolve(settings.from_assignments([assignment(key, value)]))


def suggest(trial: BaseTrial, key: str, values: Any) -> Any:  # noqa: ANN401 - as in the plan
    """Have `trial` choose the value of a parameter."""
    if isinstance(values, list):
        return trial.suggest_categorical(key, values)
    low, high, log = values["low"], values["high"], values.get("log", False)
    step = values.get("step")
    if all(type(value) is int for value in (low, high, step or 1)):
        return trial.suggest_int(key, low, high, step=1 if step is None else step, log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _is_finite(value: Any) -> bool:  # noqa: ANN401 - any TOML
    return is_number(value) and math.isfinite(value)


def _commands(given: object) -> list[list[str]]:
    if not isinstance(given, list) or not given or not all(isinstance(c, str) for c in given):
        raise ConfigError('commands is a list such as ["phase1 --data data", "analyze {phase1}"]')
    try:
        commands = [shlex.split(text) for text in given]
    except ValueError as error:
        raise ConfigError(f"commands: {reason(error)}") from error
    names = [words[0] if words else "" for words in commands]
    for place, name in enumerate(names):
        if name not in (*WRITES, *READS):
            raise ConfigError(f"commands: {name!r} is none of {', '.join((*WRITES, *READS))}")
        if name in names[:place]:
            raise ConfigError(f"commands: {name} comes twice, its figures could not be told apart")
        for word in commands[place]:
            if word.partition("=")[0] == "--out":
                raise ConfigError(f"commands: {name} writes into the folder of a trial: no --out")
            try:
                word.format_map(dict.fromkeys(["trial", *names[:place]], ""))
            except (AttributeError, LookupError, ValueError) as error:
                raise ConfigError(
                    f"commands: {word!r} names {reason(error)}: {{trial}} or a command before it"
                ) from error
    return commands


def _check_figure(figure: str, names: list[str]) -> None:
    name, _, place = figure.partition(".")
    if name not in names or not place:
        raise ConfigError(
            f"figure {figure}: write COMMAND.PLACE of its --json, with a command of this sweep "
            f"({', '.join(names)})"
        )


def assignment(key: str, value: object) -> str:
    """Return what `--set` takes."""
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"
