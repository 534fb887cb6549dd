"""Rows of a data set, one at a time: from a file or, through the `datasets` library, the hub."""

import glob
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newllm_core.data.hub import require_hub, unreachable
from newllm_core.data.sources.base import Broken
from newllm_core.errors import InputError, reason
from newllm_core.files.strict_json import parse_json

LINES = ".jsonl"
BUILDERS = {".json": "json", ".parquet": "parquet"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Row = dict[str, Any]


def local_rows(path: Path) -> Iterator[Row | Broken]:
    """Yield the rows of a `.jsonl`, `.json` or `.parquet` file.

    Raises:
        InputError: another format, or damaged; of a `.jsonl` file, only damaged lines are broken.
    """
    if path.suffix.lower() == LINES:
        yield from _line_rows(path)
        return
    builder = BUILDERS.get(path.suffix.lower())
    if builder is None:
        expected = ", ".join([LINES, *BUILDERS])
        raise InputError(f"{path} has the format {path.suffix or 'unknown'!r}: expected {expected}")
    from datasets import load_dataset
    from datasets.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # what it says of a damaged file is said below
    # Streaming leaves a lock file in the cache folder: the user's own stays as it was.
    with tempfile.TemporaryDirectory(prefix="newllm-") as cache:
        try:
            yield from load_dataset(
                builder,
                data_files=glob.escape(str(path.absolute())),
                split="train",
                streaming=True,
                cache_dir=cache,
            )
        except Exception as error:  # pyarrow, pandas and datasets raise types of their own
            cause = error.__cause__ or error
            raise InputError(f"cannot read {path} as {builder}: {reason(cause)}") from error


def _line_rows(path: Path) -> Iterator[Row | Broken]:
    """Yield the objects of a file with a JSON object on every line; blank lines are none."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if not line.strip():
                    continue
                try:
                    row = parse_json(line.decode("utf-8"))
                except ValueError as error:  # UnicodeDecodeError is one
                    yield Broken(f"{path}: line {number} is not JSON: {reason(error)}")
                    continue
                if isinstance(row, dict):
                    yield row
                else:
                    kind = type(row).__name__
                    yield Broken(f"{path}: line {number} holds {kind}, expected an object")
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error


def hub_rows(repository: str, split: str, *, name: str | None = None) -> Iterator[Row]:
    """Yield the rows of one split of a data set on the hub, as they arrive.

    Raises:
        InputError: the hub is out of reach, or has no such data set, configuration or split.
    """
    instead = "give a local copy with --input PATH"
    require_hub(repository, instead)
    from datasets import load_dataset

    try:
        yield from load_dataset(repository, name, split=split, streaming=True)
    except Exception as error:  # the hub's, the network's and the file format's own types
        raise unreachable(repository, reason(error), instead) from error
