"""A network in a Python file that has a function `step`.

    def step(state, ids): ...      # ids [B]; the state a tensor or a nest of them, batch B
    start = torch.zeros(1, 64)     # the state before any token, batch one

and if they are there `control` (a step), `parameters`, `vocab_size`, `encode`, `text`, `values`
(see `Network`).
"""

from dataclasses import fields
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor

from newllm_core.analysis.foreign.base import Network, named
from newllm_core.errors import PluginError
from newllm_core.plugins.plugin import Plugin, import_file

# All others but `start`, which is anything with tensors in it, are functions.
KINDS: dict[str, type[Any]] = {"parameters": Integral, "vocab_size": Integral, "values": Tensor}


def open_step_file(path: Path) -> Network:
    """Import a file with a `step`; it decides where it computes.

    Raises:
        PluginError: it cannot be imported, or is not what the head of this module says.
    """
    plugin = Plugin("recurrence", path.stem, f"{path}:step", "file", "", file=path)
    with plugin.importing(str(path)):
        module = import_file(path)
    found = {s.name: getattr(module, s.name, None) for s in fields(Network)}
    given = {name: value for name, value in found.items() if value is not None}
    if not callable(given.get("step")) or "start" not in given:
        raise PluginError(f"{path} needs a function step(state, ids) and a state named start")
    for name, value in given.items():
        kind = KINDS.get(name)
        if name != "start" and not (isinstance(value, kind) if kind else callable(value)):
            wanted = {None: "function", Integral: "whole number"}.get(kind, "tensor")
            raise PluginError(
                f"{path}: {name} is of type {type(value).__name__}, newllm reads it as a {wanted}: "
                "make it one, or give it another name"
            )
    return named(Network(**given), str(path), plugin)
