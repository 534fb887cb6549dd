"""Rows of a data set, one at a time, through the `datasets` library: from a file or the hub."""

import glob
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newllm_core.data.hub import require_hub, unreachable
from newllm_core.errors import InputError, reason

BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def local_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `.jsonl`, `.json` or `.parquet` file.

    Raises:
        InputError: another format, or damaged.
    """
    builder = BUILDERS.get(path.suffix.lower())
    if builder is None:
        raise InputError(
            f"{path} has the format {path.suffix or 'unknown'!r}: expected {', '.join(BUILDERS)}"
        )
    from datasets import load_dataset

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


def hub_rows(repository: str, split: str, *, name: str | None = None) -> Iterator[dict[str, Any]]:
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
