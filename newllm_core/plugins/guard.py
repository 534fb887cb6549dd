"""Running code that is not ours: what it prints, how long it takes, what it raises."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from traceback import walk_tb

from newllm_core import errors

# Nothing may be silent for ten seconds; torch alone, which a plugin may import, takes several.
SLOW_IMPORT_SECONDS = 8.0
# What is said of a module whose base was not made, when it is assigned to or used.
UNMADE = ("before Module.__init__() call", "attribute '_parameters'", "attribute 'context_dim'")

log = logging.getLogger("newllm")


class ConformanceError(AssertionError):
    """A plugin does not keep its contract; the message has one line for each way.

    Attributes:
        failures: those lines.
    """

    def __init__(self, where: str, failures: list[str]) -> None:
        super().__init__("\n  ".join([f"{where} fails in {len(failures)} way(s):", *failures]))
        self.failures = failures


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return type and message of a foreign exception, on one line of at most `limit` characters."""
    said = errors.one_line(f"{type(error).__name__}: {error}", limit).removesuffix(":")
    forgot = any(words in said for words in UNMADE)
    return said + (": call super().__init__(…) first" if forgot else "")


def place_in(module: str, error: BaseException) -> str | None:
    """Return `FILE.py:LINE` of the last frame of `error` that lies in the package of `module`."""
    package = module.partition(".")[0]
    place = None
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            place = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
    return place


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything the body prints to stderr: stdout is for results.

    Subprocesses and C libraries write to the descriptor, so that is turned too where there is one.
    """
    sys.stdout.flush()
    kept = None
    with suppress(OSError):
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def slow_notice(what: str) -> Iterator[None]:
    """Say once that `what` takes long, while it does."""
    seconds = SLOW_IMPORT_SECONDS
    timer = threading.Timer(
        seconds, log.warning, (f"{what} has been importing for {seconds:g} s and is not done",)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
