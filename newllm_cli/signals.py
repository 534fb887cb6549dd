"""Ctrl-C, SIGTERM and a closed terminal from the first moment on."""

import os
import signal
from types import FrameType

from newllm_core.runtime.interruption import SIGNALS

SECONDS_TO_ASK_AGAIN = 0.05


def interrupt_on_signals() -> None:
    """Let each raise `KeyboardInterrupt`, unless it is ignored, as under nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _imports_torch(frame):
        raise KeyboardInterrupt
    # torch swallows what comes out of its import of numpy, and goes on with half of it.
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
    signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_ASK_AGAIN)


def _imports_torch(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "torch":
            return True
        frame = frame.f_back
    return False
