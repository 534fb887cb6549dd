"""Ctrl-C, SIGTERM and a closed terminal, from the first moment on."""

import os
import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPORTING = "<frozen importlib._bootstrap>"


def end_on_signals(line: str) -> None:
    """Let each raise `KeyboardInterrupt`, unless it is ignored, as under nohup.

    While a module is being imported the process ends at once, with `line` on stderr: torch goes on
    with half of numpy where an exception comes out of its import, and nothing was begun yet.
    """

    def end(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == IMPORTING:
                os.write(sys.stderr.fileno(), f"{line}\n".encode())
                os._exit(128 + signal.SIGINT)
            frame = frame.f_back
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
