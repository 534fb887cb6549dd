"""Trackio (https://github.com/gradio-app/trackio): a dashboard on this machine or a Space."""

import os
from collections.abc import Mapping
from pathlib import Path

from newllm_trackers import PROJECT, OfLibrary, library


class Trackio(OfLibrary):
    """Logs to Trackio (extra: trackio): `trackio show` draws it."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint)
        self._trackio = library("trackio")
        self._trackio.init(
            project=PROJECT, name=checkpoint.stem, space_id=os.environ.get("TRACKIO_SPACE_ID")
        )

    def write(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """Log numbers, and the event's own count beside them."""
        self._trackio.log({**figures, f"{event}/step": step})

    def close(self) -> None:
        """Finish the run."""
        self._trackio.finish()
