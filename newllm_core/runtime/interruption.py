"""SIGINT, SIGTERM and SIGHUP as a request to stop where the state of a run can be saved."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What asks a program to end: Ctrl-C, `kill`, a terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# One Ctrl-C may arrive twice: from the terminal and from whoever started this process.
SECONDS_TO_A_SECOND_SIGNAL = 1.0


class Interruption:
    """While it is entered, the first signal only asks; a second one raises `KeyboardInterrupt`.

    Args:
        signals: those that ask.

    Attributes:
        asked: whether a signal came.
    """

    def __init__(self, signals: Sequence[int] = SIGNALS) -> None:
        self.asked = False
        self._signals = signals
        self._asked_at = 0.0
        self._immediately = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def interrupt_immediately(self) -> Iterator[None]:
        """Inside, a signal raises `KeyboardInterrupt` without delay."""
        if self.asked:
            raise KeyboardInterrupt
        self._immediately = True
        try:
            yield
        finally:
            self._immediately = False

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in a job of the background
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self.asked and now - self._asked_at > SECONDS_TO_A_SECOND_SIGNAL
        if not self.asked:
            self.asked, self._asked_at = True, now
        if again or self._immediately:
            self._immediately = False
            raise KeyboardInterrupt
