"""Files that are either the old one or the new one, never half of each."""

import contextlib
import errno
import glob
import os
from collections.abc import Callable
from pathlib import Path

from newllm_core.errors import InputError


def refuse_existing(path: Path, *, overwrite: bool, option: str = "--out") -> None:
    """Raise `InputError` if `path`, given with `option`, exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists: choose another {option}, or pass --overwrite to replace it"
        )


def reason(error: OSError) -> str:
    """What went wrong, and what to do where that is known."""
    text = error.strerror or " ".join(str(error).split())
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or any(words in text for words in (os.strerror(errno.ENOSPC), "File too large")):
        return f"{text}; free some space (or raise the limit) and run the command again"
    return text


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; only for who holds its lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file beside `path`, flush it to disk, then rename it.

    Raises:
        InputError: the folder or file cannot be written; what was at `path` is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
