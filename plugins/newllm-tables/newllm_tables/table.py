"""The `table` source: one document per row, from a text column or a chat column."""

import glob
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newllm_core.config import option
from newllm_core.data.sources.base import DataSource, Document, Message
from newllm_core.data.sources.files import input_file
from newllm_core.data.sources.json_rows import kind_of
from newllm_core.errors import ConfigError, InputError, reason

# File ending to the builder of `datasets` that reads it, and that builder's own arguments.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".arrow": ("arrow", {}),
}
WHAT = f"a file that ends in {', '.join(FORMATS)}"


@dataclass(frozen=True)
class TableOptions:
    """Which column is read, and how a chat is written in it."""

    text_column: str | None = option(None, "Column of texts; text if no column is chosen.")
    chat_column: str | None = option(
        None, "Column of chats instead: a list of turns, or one as JSON text."
    )
    role_key: str = option("role", "Key of who speaks in a turn.")
    content_key: str = option("content", "Key of what is said in a turn.")

    def __post_init__(self) -> None:
        if self.text_column is not None and self.chat_column is not None:
            raise ConfigError("source.text_column and source.chat_column: choose one")


class Table(DataSource):
    """One document per row of a CSV, TSV, Parquet, JSON or Arrow file.

    Rows whose cell is empty or null are left out. The file is streamed.
    """

    Options = TableOptions
    options: TableOptions

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the rows.

        Raises:
            InputError: no file, another format, a damaged one, or no such column.
        """
        path = input_file("table", self.input, WHAT)
        chat = self.options.chat_column
        column = chat or self.options.text_column or "text"
        for number, row in enumerate(rows(path, column), start=1):
            if column not in row:
                name = "chat_column" if chat else "text_column"
                raise InputError(
                    f"{path} has no column {column!r} (it has {', '.join(row)}): set source.{name}"
                )
            cell = row[column]
            if cell is None or cell in ("", []):
                continue
            where = f"{path}: row {number}, column {column!r}"
            if chat:
                yield Document(messages=self._messages(cell, where))
            elif isinstance(cell, str):
                yield Document(text=cell)
            else:
                raise InputError(f"{where} holds {kind_of(cell)}, expected text")

    def _messages(self, cell: object, where: str) -> tuple[Message, ...]:
        if isinstance(cell, str):
            try:
                cell = json.loads(cell)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} is not JSON: {reason(error)}") from error
        if not isinstance(cell, list):
            raise InputError(f"{where} holds {kind_of(cell)}, expected a list of turns")
        keys = self.options.role_key, self.options.content_key
        messages = []
        for turn in cell:
            values = [turn.get(key) for key in keys] if isinstance(turn, Mapping) else [None]
            if not all(isinstance(value, str) for value in values) or not values[0]:
                raise InputError(
                    f"{where} has a turn without the texts {keys[0]!r} and {keys[1]!r}"
                )
            messages.append(Message(*values))
        return tuple(messages)


def rows(path: Path, column: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as `datasets` reads them, cells of `column` as they are in CSV.

    Raises:
        InputError: another format, or a damaged file.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} has the format {path.suffix or 'unknown'!r}: give {WHAT}")
    builder, arguments = FORMATS[path.suffix.lower()]
    if builder == "csv":
        # A word such as NA and a number such as 1.50 are text like any other.
        arguments = {"keep_default_na": False, "converters": {column: str}} | arguments
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
                **arguments,
            )
        except Exception as error:  # pyarrow, pandas and datasets raise types of their own
            cause = error.__cause__ or error
            raise InputError(f"cannot read {path} as {builder}: {reason(cause)}") from error
