"""Lines of a run log as numbers with names, for every tracker alike."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from newllm_core.errors import UserError, reason
from newllm_core.plugins.guard import stdout_to_stderr
from newllm_core.runtime.trackers.base import Tracker

# What an event counts its lines by; others are counted from 1.
STEP_KEYS = ("step", "epoch")
log = logging.getLogger("newllm")


class Feed:
    """Gives lines to trackers. One that fails is left out from then on: the run matters more.

    Args:
        trackers: to make.
        checkpoint: what the run will write.

    Raises:
        UserError: a tracker cannot begin, for a reason that it words.
    """

    def __init__(self, trackers: Sequence[type[Tracker]], checkpoint: Path) -> None:
        with stdout_to_stderr():  # what a library says is no result
            self._trackers = [tracker(checkpoint) for tracker in trackers]
        self._lines: dict[str, int] = {}

    def write(self, event: str, figures: Mapping[str, Any]) -> None:
        """Take one line."""
        self._lines[event] = self._lines.get(event, 0) + 1
        step = next((figures[key] for key in STEP_KEYS if key in figures), self._lines[event])
        named = {f"{event}/{place}": value for place, value in numbers(figures)}
        for tracker in list(self._trackers):
            try:
                with stdout_to_stderr():
                    tracker.write(event, step, named)
            except Exception as error:  # a network or a disk may fail in any way
                self._leave_out(tracker, error)

    def close(self) -> None:
        """Finish all."""
        for tracker in self._trackers:
            try:
                with stdout_to_stderr():
                    tracker.close()
            except Exception as error:
                self._leave_out(tracker, error)

    def _leave_out(self, tracker: Tracker, error: Exception) -> None:
        self._trackers = [other for other in self._trackers if other is not tracker]
        why = str(error) if isinstance(error, UserError) else reason(error)
        name = type(tracker).__name__
        log.warning("warning: %s shows no more of this run, which goes on: %s", name, why)


def numbers(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number in nested mappings and lists, with its place; counters are left out."""
    for key, value in figures.items():
        if isinstance(value, list | tuple):
            value = {str(index): inner for index, inner in enumerate(value, 1)}
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}/")
        elif _is_number(value) and (prefix or key not in STEP_KEYS):
            yield f"{prefix}{key}", float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
