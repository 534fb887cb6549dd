"""How long work in the core tells whoever is watching; the command line draws it."""

from contextlib import AbstractContextManager, nullcontext


class Task:
    """One piece of work that is under way. This one drops what it is told."""

    def advance(self, amount: int, note: str = "") -> None:
        """Say that `amount` more units are done; `note` is shown beside the bar."""


class Progress:
    """Receives what long work has to say. This one drops it."""

    def message(self, text: str) -> None:
        """Show one line."""

    def warning(self, text: str) -> None:
        """Show one line that should not be overlooked."""

    def task(self, label: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: not known beforehand)."""
        return nullcontext(Task())


class Silent(Progress):
    """Progress that nobody watches: the default of every function in the core."""
