"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from newllm_core.data.dataset_info import FORMAT, INFO_FILE, LARGEST_INFO, SPLITS, data_files
from newllm_core.errors import InputError, reason
from newllm_core.files.atomic import sync
from newllm_core.files.from_strangers import read_text
from newllm_core.files.lock import exclusive
from newllm_core.files.strict_json import parse_json

NEW, OLD = "new", "old"


@contextmanager
def publishing(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; its folder `new` becomes `out` in the end.

    Whatever happens, the temporary folder is gone afterwards; if the body raises, `out` is as it
    was. What a run that was killed left behind is swept up by the next. One run at a time: see
    `newllm_core.files.lock`. `InputError` if `out` may not be replaced or cannot be written.
    """
    out = Path(os.path.realpath(out))  # a link stays, what it points to is replaced
    with exclusive(out):
        work = out.parent / f".{out.name}.preparing"
        try:
            _sweep(work, out)
            _check_free(out, overwrite)
            (work / NEW).mkdir(parents=True)
            yield work
            for path in (*(work / NEW).iterdir(), work / NEW):
                sync(path)
            _check_free(out, overwrite)
            if os.path.lexists(out):
                out.rename(work / OLD)
            (work / NEW).rename(out)
            sync(out.parent)
        except OSError as error:
            raise InputError(f"cannot write {out}: {reason(error)}") from error
        finally:
            with suppress(OSError):
                _sweep(work, out)


def _sweep(work: Path, out: Path) -> None:
    """Remove what a run left; if it ended while it exchanged folders, the old one is back."""
    if not os.path.lexists(out) and (work / OLD).is_dir():
        (work / OLD).rename(out)
    if os.path.lexists(work):
        shutil.rmtree(work)


def _check_free(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out} exists already: choose another --out, or give --overwrite")
    if os.path.ismount(out):  # which cannot be exchanged
        raise InputError(f"a disk is mounted at {out}: give a folder in it as --out")
    try:
        content = parse_json(read_text(out / INFO_FILE, limit=LARGEST_INFO))
        ours = isinstance(content, dict) and content.get("format") == FORMAT
        foreign = sorted({path.name for path in out.iterdir()} - {INFO_FILE, *data_files(SPLITS)})
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
