"""The figures of a run, one JSON object a line, in `NAME.metrics.jsonl` beside its checkpoint."""

import contextlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from newllm_core.errors import InputError, reason
from newllm_core.files.names import beside
from newllm_core.runtime.trackers.base import Tracker
from newllm_core.runtime.trackers.feed import Feed


def metrics_path(checkpoint: Path) -> Path:
    """Return where the metrics of `checkpoint` are."""
    return beside(checkpoint, "metrics.jsonl")


def has_figures(path: Path) -> bool:
    """Say whether somebody's figures are at `path`."""
    return path.exists() and path.stat().st_size > 0


class RunLog:
    """Appends a line for every event; a line is on disk before the next is made.

    Args:
        checkpoint: what the log lies beside; None keeps no log (in all processes but the first).
        trackers: get the same figures.
        resume_after: how many lines of the log that is there belong to the run; those after them
            are dropped, because the run will make them again. 0 begins a new log.

    Raises:
        InputError: the file cannot be written, or lines that belong to the run are not there.
        ConfigError: what a tracker needs is not installed.
    """

    def __init__(
        self,
        checkpoint: Path | None,
        *,
        trackers: Sequence[type[Tracker]] = (),
        resume_after: int = 0,
    ) -> None:
        self._lines = resume_after
        self._feed: Feed | None = None
        self._file: BinaryIO | None = None
        if checkpoint is None:
            return
        self.path = metrics_path(checkpoint)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._kept(resume_after)
            self._file = self.path.open("r+b" if kept else "wb")
            self._file.truncate(sum(map(len, kept)))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {reason(error)}") from error
        if trackers:
            self._feed = Feed(trackers, checkpoint)
            for line in kept:
                figures = json.loads(line)
                self._feed.write(figures.pop("event"), figures)

    def write(self, event: str, **figures: Any) -> None:  # noqa: ANN401 - anything JSON can hold
        """Add one line.

        Raises:
            InputError: there is no room for it.
        """
        self._lines += 1
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"event": event} | figures).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {reason(error)}") from error
        if self._feed is not None:
            self._feed.write(event, figures)

    def flush_to_disk(self) -> int:
        """The number of lines so far; they survive the end of the machine, not only of this run."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        return self._lines

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
                self._file.close()
        if self._feed is not None:
            self._feed.close()
