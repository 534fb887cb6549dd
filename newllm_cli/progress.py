"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere; never silence."""

import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress as bars
from rich.table import Column
from rich.text import Text

from newllm_cli.output import plain_console
from newllm_core.config import RunConfig
from newllm_core.runtime.progress import Progress, Task
from newllm_core.settings import Settings

SECONDS_BETWEEN_LINES = 5.0
# After so long without a word somebody would wonder.
LONGEST_SILENCE = 8.0
# What is not cut where a terminal is narrow: the note is.
WHOLE = Column(no_wrap=True)
# Rates are known well enough for an estimate: the first steps, in which memory is taken and
# libraries choose what is fast, are slower than all others.
SECONDS_OF_ESTIMATE = 2.0
# So long a wait should not be overlooked.
SECONDS_OF_WARNING = 60.0


class StderrProgress(Progress):
    """Shows messages, warnings and tasks of the core on stderr.

    Of the settings `given`, `run.warn_tokens` says how much reading is announced.
    """

    def __init__(self, given: Settings | None = None) -> None:
        self._console = plain_console(stderr=True, highlight=False)
        self._warn_tokens = given.resolve().run.warn_tokens if given else RunConfig.warn_tokens
        self._announced: set[str] = set()
        self._silence = _Silence()

    def message(self, text: str) -> None:
        """Show one line."""
        self._silence.broken(text)
        self._console.print(text, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Show one line that should not be overlooked."""
        self._silence.broken()
        self._console.print(f"warning: {text}", style="yellow", soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Task]:
        """Show a bar with rate and time left, or lines if stderr is no terminal."""
        if not sys.stderr.isatty():
            lines = _Lines(label, total, unit, self._silence)
            yield self._announcing(lines, label, total, unit)
            lines.finish()
            return
        columns = (
            bars.TextColumn("{task.description}", markup=False, table_column=WHOLE),
            bars.BarColumn(bar_width=10, table_column=WHOLE),
            bars.TaskProgressColumn(table_column=WHOLE),
            _Rate(unit, table_column=WHOLE),
            bars.TimeRemainingColumn(compact=True, table_column=WHOLE),
            bars.TextColumn(
                "{task.fields[note]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
        )
        with bars.Progress(
            *columns, console=self._console, transient=True, expand=True
        ) as progress:
            self._silence.paused = True  # a bar moves by itself
            bar = _Bar(progress, progress.add_task(label, total=total, note=""))
            try:
                yield self._announcing(bar, label, total, unit)
            finally:
                self._silence.paused = False
        self._silence.broken()

    def _announcing(self, task: Task, label: str, total: int | None, unit: str) -> Task:
        """Let a task with much to read say so, once for each kind of task."""
        if unit != "tokens" or not total or total <= self._warn_tokens or label in self._announced:
            return task
        self._announced.add(label)
        return _Announcing(self, task, label, total)


class _Bar(Task):
    def __init__(self, progress: bars.Progress, task: bars.TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: int, note: str = "") -> None:
        self._progress.update(self._task, advance=amount)
        if note:
            self._progress.update(self._task, note=note)


class _Rate(bars.ProgressColumn):
    def __init__(self, unit: str, table_column: Column) -> None:
        super().__init__(table_column)
        self._unit = unit

    def render(self, task: bars.Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{_rate(speed)} {self._unit}/s" if speed else "")


class _Announcing(Task):
    """A task that says how long it will take, once that can be told."""

    def __init__(self, progress: StderrProgress, task: Task, label: str, total: int) -> None:
        self._progress, self._task, self._label, self._total = progress, task, label, total
        self._began, self._done, self._waiting = time.monotonic(), 0, True

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        seconds = time.monotonic() - self._began
        if self._waiting and self._done and seconds >= SECONDS_OF_ESTIMATE:
            self._waiting = False
            rate = self._done / seconds
            is_long = self._total / rate >= SECONDS_OF_WARNING
            tell = self._progress.warning if is_long else self._progress.message
            tell(
                f"{self._label}: {self._total:,} tokens to read, about "
                f"{_clock(self._total / rate)} at {_rate(rate)} tokens/s"
            )
        self._task.advance(amount, note)


class _Silence:
    """Says on a pipe or a terminal that work goes on, when nothing else was said for long."""

    def __init__(self) -> None:
        self._last, self._what, self.paused = time.monotonic(), "starting", False
        threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()

    def broken(self, text: str = "") -> None:
        self._last = time.monotonic()
        self._what = text or self._what

    def look(self) -> None:
        """Speak up if it has lasted too long."""
        if time.monotonic() - self._last >= LONGEST_SILENCE and not self.paused:
            self._last = time.monotonic()
            print(f"still at work after: {self._what:.60}", file=sys.stderr, flush=True)


def _watch(silence: "weakref.ref[_Silence]") -> None:
    """Look every second, as long as the progress is there that it belongs to."""
    while (watched := silence()) is not None:
        watched.look()
        del watched
        time.sleep(1)


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class _Lines(Task):
    def __init__(self, label: str, total: int | None, unit: str, silence: _Silence) -> None:
        self._silence = silence
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
        self._silence.broken(self._label)
        rate = self._done / max(seconds, 1e-9)
        text = f"{self._label}: {self._done:,}"
        if self._total:
            text += f" of {self._total:,} ({self._done / self._total:.0%})"
        text += f" {self._unit}, {_rate(rate)} {self._unit}/s"
        if self._total and self._done:
            left = max(0, self._total - self._done) / rate
            text += f", {_clock(left)} left"
        print(text + (f"; {self._note}" if self._note else ""), file=sys.stderr, flush=True)
