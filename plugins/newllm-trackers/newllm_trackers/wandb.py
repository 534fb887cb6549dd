"""Weights & Biases (https://docs.wandb.ai)."""

import os
from collections.abc import Mapping
from pathlib import Path

from newllm_trackers import PROJECT, OfLibrary, library


class Wandb(OfLibrary):
    """Logs to Weights & Biases (extra: wandb): log in first, or WANDB_MODE=offline."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint)
        self._run = library("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=checkpoint.stem,
            dir=str(checkpoint.parent),
        )
        self._events: set[str] = set()

    def write(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """Log numbers on the event's own axis: events are counted each for itself."""
        axis = f"{event}/step"
        if event not in self._events:
            self._events.add(event)
            self._run.define_metric(f"{event}/*", step_metric=axis)
        self._run.log({**figures, axis: step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
