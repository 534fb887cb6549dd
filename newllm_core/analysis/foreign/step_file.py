"""A Python file with a `step` function.

    def step(state, ids): ...      # ids [B]; the state a tensor or a nest of them, batch B
    start = torch.zeros(1, 64)     # the state before any token, batch one

and if they are there `control` (a step), `parameters`, `vocab_size`, `encode`, `text`, `values`
(see `Network`).
"""

from dataclasses import fields
from pathlib import Path

import torch

from newllm_core.analysis.foreign.base import Foreign, Network
from newllm_core.errors import PluginError
from newllm_core.files.from_strangers import regular_file
from newllm_core.plugins.files import import_file
from newllm_core.plugins.guard import one_line, stdout_to_stderr


class StepFile(Foreign):
    """A network that is written down as a function."""

    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Import the file; it decides where it computes.

        Raises:
            PluginError: it cannot be imported, or has no `step` and `start`.
        """
        path = regular_file(path, "plugin").absolute()
        try:
            with stdout_to_stderr():
                module = import_file(path)
        except Exception as error:  # a file may raise anything at import
            raise PluginError(f"{path} cannot be imported: {one_line(error)}") from error
        given = {
            s.name: getattr(module, s.name) for s in fields(Network) if hasattr(module, s.name)
        }
        if not callable(given.get("step")) or "start" not in given:
            raise PluginError(f"{path} needs a function step(state, ids) and a state named start")
        return Network(**given)
