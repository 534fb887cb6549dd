"""Errors that are the user's to mend, each with the exit code the command line ends with.

A message is one line: what is wrong, where, and what to do about it. Anything that is not a
`UserError` is a bug in newllm (or in a plugin) and ends in a traceback and exit code 1.
"""

import errno
import os
from pathlib import Path

LONGEST_MESSAGE = 2000
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def one_line(text: str, limit: int) -> str:
    """Return `text` without line ends or control characters, cut to `limit` characters."""
    shown = " ".join(text[: 4 * limit].split())
    shown = shown.encode("utf-8", "backslashreplace").decode()  # names of files are bytes
    shown = "".join(char if char.isprintable() else "?" for char in shown)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def reason(error: BaseException, limit: int = 200) -> str:
    """Return what a foreign exception says, on one line of at most `limit` characters.

    Where a disk is full, or a file is where a folder should be, also what to do about it.
    """
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        for place in (path, *path.parents):
            if os.path.lexists(place) and not os.path.isdir(place):
                return f"{one_line(str(place), limit)} is no folder: give another path"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = one_line(str(said), limit) or type(error).__name__
    full = getattr(error, "errno", None) in FULL_DISK
    # Libraries that word their own errors keep the system's words for these.
    if full or any(words in text for words in map(os.strerror, (errno.ENOSPC, errno.EFBIG))):
        return f"{text}; free some space (or raise the limit) and run the command again"
    return text


class UserError(Exception):
    """Base of every error a user can mend. `exit_code` is documented in `newllm --help`.

    A message quotes files and arguments, which may hold anything: it is made one line here.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, LONGEST_MESSAGE))


class ConfigError(UserError):
    """An unknown name, key, value or configuration file."""

    exit_code = 2


class InputError(UserError):
    """A file or folder that is missing, empty, foreign, unreadable, or in the way."""

    exit_code = 3


class PluginError(UserError):
    """A plugin that cannot be loaded or does not keep its contract."""

    exit_code = 4


class DivergedError(UserError):
    """Training met a loss or gradient that is not finite."""

    exit_code = 5


class GateRefused(UserError):
    """Phase 2 was asked for on a checkpoint whose contexts are degenerate."""

    exit_code = 6


INTERRUPTED = 130


class Interrupted(UserError):
    """A run was asked to stop, or lost one of its processes; its state is saved."""

    exit_code = INTERRUPTED


class ProcessLost(Interrupted):
    """Another process of the run ended or cannot be reached any more."""
