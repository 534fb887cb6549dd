"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.table import Column
from rich.text import Text

from newllm_core.runtime.progress import Task

SECONDS_BETWEEN_LINES = 5.0


class StderrProgress:
    """Shows messages, warnings and tasks of the core on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def message(self, text: str) -> None:
        """Show one line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Show one line that should not be overlooked."""
        self._console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Task]:
        """Show a bar with rate and time left, or lines if stderr is no terminal."""
        if not sys.stderr.isatty():
            lines = _Lines(label, total, unit)
            yield lines
            lines.finish()
            return
        columns = (
            TextColumn("{task.description}", markup=False, table_column=_whole()),
            BarColumn(bar_width=10, table_column=_whole()),
            TaskProgressColumn(table_column=_whole()),
            _Rate(unit, table_column=_whole()),
            TimeRemainingColumn(compact=True, table_column=_whole()),
            TextColumn(
                "{task.fields[note]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
        )
        with Progress(*columns, console=self._console, transient=True, expand=True) as progress:
            yield _Bar(progress, progress.add_task(label, total=total, note=""))


def _whole() -> Column:
    """Return what is not cut where a terminal is narrow: the note is."""
    return Column(no_wrap=True)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: int, note: str = "") -> None:
        self._progress.update(self._task, advance=amount)
        if note:
            self._progress.update(self._task, note=note)


class _Rate(ProgressColumn):
    def __init__(self, unit: str, table_column: Column) -> None:
        super().__init__(table_column)
        self._unit = unit

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else "")


class _Lines:
    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._began = self._shown = time.monotonic()
        self._done = self._shown_done = 0
        self._note = ""

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        self._note = note or self._note
        now = time.monotonic()
        if now - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = now
            self._show(now - self._began)

    def finish(self) -> None:
        seconds = time.monotonic() - self._began
        if seconds >= 1 and self._shown_done < self._done:
            self._show(seconds)

    def _show(self, seconds: float) -> None:
        self._shown_done = self._done
        rate = self._done / max(seconds, 1e-9)
        text = f"{self._label}: {self._done:,}"
        if self._total:
            text += f" of {self._total:,}"
        text += f" {self._unit}, {rate:,.0f} {self._unit}/s"
        if self._total and self._done:
            left = max(0, self._total - self._done) / rate
            text += f", {int(left) // 60}:{int(left) % 60:02d} left"
        print(text + (f"; {self._note}" if self._note else ""), file=sys.stderr, flush=True)
