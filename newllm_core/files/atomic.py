"""Files that are either the old one or the new one, never half of each."""

import glob
import os
import shutil
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
        shutil.rmtree(left, ignore_errors=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file, flush it to disk, then rename it to `path`.

    The temporary file is in a folder of its own beside `path`: libraries that write add temporary
    files of theirs, which would stay there under unknown names if this process were killed.

    Raises:
        InputError: the folder or file cannot be written; what was at `path` is still there.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary = folder / path.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # Libraries that write a private file leave it so; others may read what open() makes.
        beside = folder / "permissions"
        beside.touch()
        temporary.chmod(beside.stat().st_mode)
        os.replace(temporary, path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
