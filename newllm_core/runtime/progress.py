"""How long work in the core tells whoever is watching; the command line draws it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work that is under way."""

    def advance(self, amount: int, note: str = "") -> None:
        """Say that `amount` more units are done; `note` is shown beside the bar."""


class Progress(Protocol):
    """Receives what long work has to say."""

    def message(self, text: str) -> None:
        """Show one line."""

    def warning(self, text: str) -> None:
        """Show one line that should not be overlooked."""

    def task(self, label: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: not known beforehand)."""


class Silent:
    """Progress that nobody watches: the default of every function in the core."""

    def message(self, text: str) -> None:
        """Drop the line."""

    warning = message

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Task]:
        """Yield a task that drops what it is told."""
        yield _SilentTask()


class _SilentTask:
    def advance(self, amount: int, note: str = "") -> None:
        pass
