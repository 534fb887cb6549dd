"""Files that are either the old one or the new one, never half of each.

A link stays: what it points to is replaced, or made, by a file that was written beside that.
"""

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from newllm_core.errors import InputError, reason


def refuse_existing(path: Path, *, overwrite: bool, option: str = "--out") -> None:
    """Raise `InputError` where `path`, given with `option`, could not be written after the work."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: choose another {option}")
    if os.path.lexists(path) and not overwrite:
        raise InputError(
            f"{path} exists: choose another {option}, or pass --overwrite to replace it"
        )
    require_writable(path)


def require_writable(path: Path) -> None:
    """Make and remove what `write_atomically` makes beside `path`; `InputError` if it cannot be."""
    try:
        with _temporary(path) as temporary:
            temporary.touch()
    except ValueError as error:  # a NUL character
        raise InputError(f"cannot write {path}: {reason(error)}") from error


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; only for who holds its lock."""
    real = Path(os.path.realpath(path))
    for left in real.parent.glob(f".{glob.escape(real.name)}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file, flush it to disk, then rename it to `path`.

    The temporary file is in a folder of its own beside `path`: libraries that write add temporary
    files of theirs, which would stay there under unknown names if this process were killed.
    Where that raises `InputError`, what was at `path` is still there.
    """
    with _temporary(path) as temporary:
        write(temporary)
        sync(temporary)
        # Libraries that write a private file leave it so; others may read what open() makes.
        beside = temporary.with_name("permissions")
        beside.touch()
        temporary.chmod(beside.stat().st_mode)
        real = Path(os.path.realpath(path))
        os.replace(temporary, real)
        sync(real.parent)


def sync(path: Path) -> None:
    """Have a file or folder on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Make a folder beside `path` for a file of the same name, and remove it afterwards."""
    folder = None
    try:
        real = Path(os.path.realpath(path))
        real.parent.mkdir(parents=True, exist_ok=True)
        # Others may write the same file at once, from another thread or another machine.
        folder = Path(tempfile.mkdtemp(prefix=f".{real.name}.", suffix=".tmp", dir=real.parent))
        yield folder / path.name
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
