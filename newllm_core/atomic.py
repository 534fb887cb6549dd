"""Files that are either the old one or the new one, never half of each."""

import contextlib
import glob
import os
import stat
from collections.abc import Callable
from pathlib import Path

from newllm_core.errors import InputError, reason


def refuse_existing(path: Path, *, overwrite: bool, option: str = "--out") -> None:
    """Raise `InputError` if `path`, given with `option`, cannot be or exists and must stay."""
    try:
        there = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    if stat.S_ISDIR(there.st_mode):
        raise InputError(f"{path} is a folder: choose another {option}")
    if not overwrite:
        raise InputError(
            f"{path} exists: choose another {option}, or pass --overwrite to replace it"
        )


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
