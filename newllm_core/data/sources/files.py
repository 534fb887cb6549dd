"""Files and folders that sources are given: they are there, or an error names them."""

import os
from pathlib import Path

# Beside `input_file`, what a source of one's own needs most.
from newllm_core.data.sources.decoding import read_lines as read_lines
from newllm_core.data.sources.opening import STDIN
from newllm_core.errors import InputError, reason
from newllm_core.files.from_strangers import regular_file


def located(given: str | os.PathLike[str]) -> Path:
    """Return the path that a user named: `~` is the home folder, `-` is stdin and `./-` is not."""
    path = Path(os.path.expanduser(given))
    return path.absolute() if path == STDIN and os.fspath(given) != str(STDIN) else path


def input_path(source: str, given: str | None, what: str) -> Path:
    """Return the file or folder that `source` needs; `what` names its kind for messages.

    `InputError` if it is not there.
    """
    if not given:
        raise InputError(f"source {source} needs {what}: give it with --input PATH")
    path = located(given)
    try:
        if path != STDIN:
            path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise InputError(
            f"cannot read {path}: {reason(error)}; give {what} with --input PATH"
        ) from error
    return path


def input_file(source: str, given: str | None, what: str) -> Path:
    """Return what `input_path` does; `InputError` too for a folder, a pipe or an empty file."""
    path = input_path(source, given, what)
    if path == STDIN:
        return path
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, source {source} needs {what}")
    regular_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty, source {source} needs {what}")
    return path


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files of a folder and below it, in the order of their relative paths.

    Names that begin with a dot are left out: they are of tools, such as .git. A link to what is
    gone is not: reading it says so.
    """
    found = sorted(path.relative_to(folder).parts for path in folder.rglob(pattern))
    paths = (
        folder.joinpath(*names) for names in found if not any(n.startswith(".") for n in names)
    )
    return [path for path in paths if not os.path.isdir(path)]
