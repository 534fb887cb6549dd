"""The file that an unfinished run can be continued from: `NAME.resume` beside its checkpoint.

A safetensors file. Tensors: parameters, optimizer moments, statistics, contexts, random states.
Metadata: the run's identity (settings and data that must be the same to continue) and its position,
both JSON. Nothing in it belongs to one process of several.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from newllm_core import settings
from newllm_core.config import Config
from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.files.from_strangers import require_version
from newllm_core.files.names import beside
from newllm_core.files.tensor_files import (
    HASH,
    bytes_of,
    content_hash,
    open_tensors,
    save_with_hash,
)
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel.collectives import full_tensor, shard_like
from newllm_core.plugins.plugin import Plugin

FORMAT = "newllm-run"
FORMAT_VERSION = "7"
Identity = Mapping[str, Any]
MOST_SHOWN = 5
VERSIONS = "versions of plugins"

# Where and how fast a run is computed, and how often it is saved.
FREE_TO_CHANGE = (
    "run.device",
    "run.threads",
    "run.kernels",
    "run.sharding",
    "run.check_interval_steps",
    "run.save_interval_seconds",
    "run.warn_tokens",
)


class State(NamedTuple):
    """Tensors by name, what JSON can hold, and the file they are from, with its identity."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    path: Path | None = None
    identity: Identity | None = None

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors named `name.…`, without that prefix."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }


def state_path(checkpoint: Path) -> Path:
    """Return where the state of the run that will write `checkpoint` is."""
    return beside(checkpoint, "resume")


def named(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` under `name.…`, as `State.part` finds them."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return moments and step counts; rates and decays follow from the settings."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": full_tensor(value)
        for index, of in state.items()
        for key, value in of.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        of_parameter = value.ndim > 0  # the count of steps is not
        share = shard_like(parameters[int(index)], value) if of_parameter else value
        state.setdefault(int(index), {})[key] = share
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def whole_parameters(parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Collect all of every parameter by its number."""
    return {str(index): full_tensor(p.detach()) for index, p in enumerate(parameters)}


@torch.no_grad()
def load_parameters(parameters: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Take over what `whole_parameters` gave."""
    for index, parameter in enumerate(parameters):
        parameter.copy_(shard_like(parameter, tensors[str(index)]))


def save_state(state: State, path: Path, identity: Identity) -> None:
    """Write atomically; if that raises `InputError`, the state before is still there."""
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": json.dumps(identity),
        "values": json.dumps(state.values),
    }
    save_with_hash(state.tensors, path, metadata)


def load_state(path: Path, identity: Identity) -> State:
    """Read the state of the very run that `identity` describes; see `require_same`.

    Raises `InputError` if it cannot be read.
    """
    with open_tensors(path, "state") as file:
        metadata = file.metadata() or {}
        _require_run_state(path, metadata)
        advice = "install the version that wrote it"
        require_version(path, metadata.get("format_version"), FORMAT_VERSION, advice)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get(HASH) != content_hash(tensors, metadata):
            raise InputError(f"{path} is damaged, its hash is wrong: begin again with --overwrite")
        try:
            saved = json.loads(metadata["identity"])
            require_same(path, saved, identity)
            return State(tensors, json.loads(metadata["values"]), path, saved)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path} is not a readable state ({reason(error)}): begin again with --overwrite"
            ) from error


def refuse_foreign(path: Path) -> None:
    """Raise `InputError` if a readable file is at `path`, but no state of a run."""
    if not os.path.exists(path):
        return
    # What cannot be read may be a damaged state; a folder cannot.
    metadata: Mapping[str, str] = {} if os.path.isdir(path) else {"format": FORMAT}
    with suppress(InputError), open_tensors(path, "state") as file:
        metadata = file.metadata() or {}
    _require_run_state(path, metadata)


def _require_run_state(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} is not the state of a newllm run: move it, or choose another --out"
        )


@contextmanager
def restoring(state: State) -> Iterator[None]:
    """Raise `InputError` where what takes over a state from a file fails: it does not fit."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{state.path} does not fit this run ({reason(error)}): begin again with --overwrite"
        ) from error


def identity_of(
    config: Config,
    sections: tuple[str, ...],
    dataset_hash: str,
    model: LanguageModel,
    plugins: Iterable[Plugin],
) -> Identity:
    """Return what must be the same to continue a run that depends on these `sections` of `config`.

    `model` is as the run begins. The versions of `plugins` may be others: who mended one goes on.
    """
    chosen = settings.to_dict(config)
    keys = {f"{name}.{key}": value for name in sections for key, value in chosen[name].items()}
    identity = {key: value for key, value in keys.items() if key not in FREE_TO_CHANGE}
    digest = hashlib.sha256()
    for tensor in (*model.parameters(), *model.buffers()):
        digest.update(bytes_of(tensor))
    versions = {f"{each.kind} {each.name}": each.version for each in plugins if not each.is_own}
    return {
        **identity,
        "dataset": dataset_hash,
        "initial weights": digest.hexdigest(),
        VERSIONS: versions,
    }


def changed_plugins(state: State, identity: Identity) -> list[str]:
    """Return a line for every plugin whose version is another than when the state was saved."""
    saved = (state.identity or {}).get(VERSIONS, {})
    return [
        f"{plugin} is {version} now, and was {saved[plugin]} when the run stopped: it goes on with "
        "the new code"
        for plugin, version in identity[VERSIONS].items()
        if saved.get(plugin, version) != version
    ]


def require_same(path: Path, saved: Identity, asked: Identity) -> None:
    """Raise `ConfigError` where settings differ, `InputError` where only data do; name some."""
    asked = json.loads(json.dumps(asked))  # tuples are lists in JSON
    keys = sorted({**saved, **asked}.keys() - {VERSIONS})
    different = [key for key in keys if saved.get(key) != asked.get(key)]
    if not different:
        return
    first = different[:MOST_SHOWN]
    shown = "; ".join(f"{key} was {saved.get(key)!r}, is {asked.get(key)!r}" for key in first)
    if len(different) > len(first):
        shown += f"; and {len(different) - len(first)} others"
    kind = ConfigError if any("." in key for key in different) else InputError
    raise kind(
        f"{path} is of another run ({shown}): --resume needs the same settings and data; to begin "
        "again pass --overwrite without --resume"
    )
