"""stdout and stderr of a process that may have neither, or a full disk behind them."""

import errno
import io
import os
import sys

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare_streams() -> None:
    """Make both exist, and let them show "?" for what a terminal or pipe cannot show."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def cannot_write(error: OSError) -> bool:
    """Whether `error` is that of a stream with no room behind it, and not of a named file."""
    return error.errno in FULL and error.filename is None


def flush_output() -> OSError | None:
    """Write what stdout still holds; returns the error of a stream with no room behind it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not cannot_write(error):
            raise
        return error
    return None


def discard_output() -> None:
    """Nobody reads stdout any more: what it still holds must not fail when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
