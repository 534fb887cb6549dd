"""The figures of a run, one JSON object a line, in `NAME.metrics.jsonl` beside its checkpoint."""

import contextlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from newllm_core.errors import InputError, UserError, reason
from newllm_core.files.names import beside
from newllm_core.plugins.guard import stdout_to_stderr
from newllm_core.runtime.trackers.base import Tracker

# What an event counts its lines by; others are counted from 1.
STEP_KEYS = ("step", "epoch")
log = logging.getLogger("newllm")


def metrics_path(checkpoint: Path) -> Path:
    """Return where the metrics of `checkpoint` are."""
    return beside(checkpoint, "metrics.jsonl")


class RunLog:
    """Appends a line for every event; a line is on disk before the next is made.

    It lies beside `checkpoint`; with None (in all processes but the first) none is kept. Trackers
    get the same figures. Of a log that is there the first `resume_after` lines belong to the run;
    those after them are of a run before, or will be made again: they are dropped once there is a
    line to write, or the run ends well without one.

    Raises:
        InputError: the file cannot be written, or lines that belong to the run are not there.
        UserError: a tracker cannot begin.
    """

    def __init__(
        self,
        checkpoint: Path | None,
        *,
        trackers: Sequence[type[Tracker]] = (),
        resume_after: int = 0,
    ) -> None:
        self._lines = resume_after
        self._trackers: list[Tracker] = []
        self._counts: Counter[str] = Counter()
        self._file: BinaryIO | None = None
        if checkpoint is None:
            return
        self.path = metrics_path(checkpoint)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._kept(resume_after)
            # First: what is there is to stay if one cannot begin.
            for tracker in trackers:
                self._begin(tracker, checkpoint)
            self._file = self.path.open("ab")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {reason(error)}") from error
        self._kept_bytes: int | None = sum(map(len, kept))  # None: the rest was dropped
        for line in kept if trackers else ():
            figures = json.loads(line)
            self._show(figures.pop("event"), figures)

    def write(self, event: str, **figures: Any) -> None:  # noqa: ANN401 - anything JSON can hold
        """Add one line.

        Raises:
            InputError: there is no room for it.
        """
        self._lines += 1
        if self._file is None:
            return
        try:
            self._drop_rest(self._file)
            self._file.write(json.dumps({"event": event} | figures).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {reason(error)}") from error
        self._show(event, figures)

    def flush_to_disk(self) -> int:
        """The number of lines so far; they survive the end of the machine, not only of this run."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        return self._lines

    def _drop_rest(self, file: BinaryIO) -> None:
        if self._kept_bytes is not None:
            file.truncate(self._kept_bytes)
            self._kept_bytes = None

    def _kept(self, count: int) -> list[bytes]:
        if count == 0:
            return []
        try:
            with self.path.open("rb") as file:
                kept = list(itertools.islice(file, count))
        except FileNotFoundError:
            kept = []
        if len(kept) < count or not kept[-1].endswith(b"\n"):
            raise InputError(
                f"{self.path} has {len(kept)} lines, but the run to resume had made {count}: put "
                "the file back, or begin again with --overwrite"
            )
        return kept

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # reported already, when it could not be written
                if not any(error):
                    self._drop_rest(self._file)
                self._file.close()
        for tracker in self._trackers:
            self._tell(tracker, tracker.close)

    def _begin(self, tracker: type[Tracker], checkpoint: Path) -> None:
        try:
            with stdout_to_stderr():  # what a library says is no result
                self._trackers.append(tracker(checkpoint))
        except Exception as error:  # no login, no server, no such experiment
            self.__exit__()
            if isinstance(error, UserError):
                raise
            name = tracker.__name__
            raise InputError(f"--track: {name} cannot begin: {reason(error)}") from error

    def _show(self, event: str, figures: Mapping[str, Any]) -> None:
        """Give a line to trackers, as numbers with names."""
        self._counts[event] += 1
        step = next((figures[key] for key in STEP_KEYS if key in figures), self._counts[event])
        named = {f"{event}/{place}": value for place, value in numbers(figures)}
        for tracker in self._trackers:
            self._tell(tracker, partial(tracker.write, event, step, named))

    def _tell(self, tracker: Tracker, call: Callable[[], None]) -> None:
        """Call a tracker; one that fails is left out from then on: the run matters more."""
        try:
            with stdout_to_stderr():
                call()
        except Exception as error:  # a network or a disk may fail in any way
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
        elif isinstance(value, bool) or not isinstance(value, int | float):
            continue
        elif prefix or key not in STEP_KEYS:
            yield f"{prefix}{key}", float(value)
