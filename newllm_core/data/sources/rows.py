"""The `rows` source: data sets as the world has them, from files, folders and the hub."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from newllm_core.config import option
from newllm_core.data.sources.base import Broken, DataSource, Document, Note
from newllm_core.data.sources.decoding import UTF8, known_encoding
from newllm_core.data.sources.files import input_file, input_path
from newllm_core.data.sources.opening import path_name
from newllm_core.data.sources.row_documents import Placed, documents_of
from newllm_core.data.sources.row_files import Part, folder_parts, hub_parts
from newllm_core.data.sources.row_readers import READERS, read_rows

WHAT = "a .jsonl, .json, .csv or .parquet file, a folder of them, or hub:NAME"
HUB = "hub:"


@dataclass(frozen=True)
class RowFileOptions:
    """How files of rows are written."""

    encoding: str = option(UTF8, "Encoding of .jsonl, .json and .csv files.")
    format: str | None = option(
        None, "jsonl, json, csv or tsv where the name does not say it; stdin is jsonl."
    )


@dataclass(frozen=True)
class RowsOptions(RowFileOptions):
    """Where the text is in a row, and how files are written."""

    text: str | None = option(
        None,
        "Column of texts, or a path such as data.text. Without: chats, a column named text, or the "
        "only one of texts.",
    )


class Rows(DataSource):
    """One document per row: a text, or a chat.

    A chat is a list `messages` of role and content, `conversations` of from and value, or
    `instruction`, `input` and `output`. The input may also be `hub:NAME` or `hub:NAME:CONFIG`.
    Files, folders and hub splits named train, validation and test stay divided so. A row that
    cannot be read is broken and changes no other one.
    """

    Options = RowsOptions

    def documents(self) -> Iterator[Document | Broken | Note]:
        """Yield the documents, held-out ones first; `InputError` for what cannot be read."""
        if self.input and self.input.startswith(HUB):
            name, _, config = self.input.removeprefix(HUB).partition(":")
            parts, notes = hub_parts(name, config or None)
        else:
            parts, notes = local_parts("rows", self.input)
        yield from map(Note, notes)
        yield from documents_of(placed_rows(parts, self.options), column=self.options.text)


def local_parts(source: str, given: str | None) -> tuple[list[Part], list[str]]:
    """Return the files that `source` was given, and what to say of them."""
    path = input_path(source, given, WHAT)
    if os.path.isdir(path):
        return folder_parts(path, READERS)
    return [(input_file(source, given, WHAT), None)], []


def placed_rows(parts: Iterable[Part], options: RowFileOptions) -> Iterator[Placed]:
    """Yield the rows of files one after another."""
    encoding = known_encoding(options.encoding)
    kind = options.format and f".{options.format}"
    for path, split in parts:
        for number, row in enumerate(read_rows(path, encoding, kind), start=1):
            yield row, path_name(path), number, split
