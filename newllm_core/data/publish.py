"""A folder that appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from newllm_core.data.dataset_info import DATA_FILES, FORMAT, INFO_FILE, LARGEST_INFO
from newllm_core.errors import InputError
from newllm_core.files import read_text
from newllm_core.strict_json import parse_json

NEW, OLD = "new", "old"


@contextmanager
def publishing(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; its folder `new` becomes `out` in the end.

    Whatever happens, the temporary folder is gone afterwards; if the body raises, `out` is as it
    was.

    Raises:
        InputError: `out` exists and may not be replaced, or cannot be written.
    """
    out = Path(os.path.abspath(out))  # not resolved: a link is replaced, not what it points to
    _check_free(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    try:
        (work / NEW).mkdir()
        yield work
        _flush(work / NEW)
        _check_free(out, overwrite)
        _replace(out, work)
        _sync(out.parent)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_free(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out} exists already: choose another --out, or give --overwrite")
    try:
        content = parse_json(read_text(out / INFO_FILE, limit=LARGEST_INFO))
        ours = isinstance(content, dict) and content.get("format") == FORMAT
        foreign = sorted({path.name for path in out.iterdir()} - {INFO_FILE, *DATA_FILES})
    except (OSError, ValueError, InputError):
        ours = False
    if not ours:
        raise InputError(
            f"{out} is not a prepared data set, so it is not overwritten: choose another --out"
        )
    if foreign:
        raise InputError(
            f"{out} is not overwritten, it also holds {foreign[0]}: choose another --out"
        )


def _replace(out: Path, work: Path) -> None:
    existed = os.path.lexists(out)
    if existed:
        out.rename(work / OLD)
    try:
        (work / NEW).rename(out)
    except BaseException:
        if existed:
            (work / OLD).rename(out)
        raise


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
