"""Files that others made: looked at before they are read, so that none can hang or fill memory."""

import os
import stat
from pathlib import Path

from newllm_core.errors import InputError, UserError, reason

# More than any vocabulary needs; JSON may take twenty times its size in memory.
LARGEST_TEXT = 40_000_000


def regular_file(
    path: str | os.PathLike[str], what: str = "file", error: type[UserError] = InputError
) -> Path:
    """Return `path`, if it is a file that can be opened: no pipe or device, which may never end.

    `what` is the kind of file that is expected, for messages, and `error` what to raise.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as missing:
        raise error(f"no such {what}: {path}") from missing
    except (OSError, ValueError) as problem:  # ValueError: a NUL character
        raise error(f"cannot read the {what} {path}: {reason(problem)}") from problem
    if stat.S_ISDIR(mode):
        raise error(f"{path} is a folder, expected a {what}")
    if not stat.S_ISREG(mode):
        raise error(f"{path} is a pipe or device, expected a {what}: write it to a file first")
    if not os.access(path, os.R_OK):
        raise error(f"cannot read the {what} {path}: permission denied")
    return Path(path)


def require_version(path: Path, found: object, wanted: object, advice: str) -> None:
    """Raise `InputError` with `advice` if a file has another format version than is `wanted`."""
    if found != wanted:
        raise InputError(
            f"{path} has format version {found!r}, this newllm reads {wanted}: {advice}"
        )


def read_text(
    path: str | os.PathLike[str],
    what: str = "file",
    *,
    limit: int = LARGEST_TEXT,
    error: type[UserError] = InputError,
) -> str:
    """Return the UTF-8 text of a file of at most `limit` bytes, without a byte order mark.

    Line ends stay as they are.
    """
    path = regular_file(path, what, error)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as problem:
        raise error(f"cannot read the {what} {path}: {reason(problem)}") from problem
    if len(data) > limit:
        raise error(f"{path} is no {what}: it has more than {limit:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(
            f"the {what} {path} is not UTF-8: byte 0x{data[problem.start]:02x} at offset "
            f"{problem.start}"
        ) from problem
