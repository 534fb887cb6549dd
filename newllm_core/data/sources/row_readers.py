"""Rows of one file, whatever it is written in: values are seen as they are in the file.

No library turns a column into something else because one value of it is odd.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.data.sources.base import Broken
from newllm_core.data.sources.decoding import UTF8, opened_text
from newllm_core.data.sources.json_rows import Row, line_rows, value_rows
from newllm_core.data.sources.opening import STDIN, format_of, opened, path_name, require_extra
from newllm_core.data.sources.row_files import Place
from newllm_core.errors import InputError, reason

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch

DELIMITERS = ",;\t|"
EXCEL = re.compile(r'sep=(\t|[^\w\s"])[\r\n]*', re.IGNORECASE)  # a first line for Excel
QUOTED = re.compile(r'"[^"]*"')
LONGEST_CELL = (1 << 31) - 1
BATCH_ROWS = 256
JSON_TYPE = "extension<arrow.json>"

Found = Iterator[Row | Broken]


def read_rows(path: Place, encoding: str = UTF8, kind: str | None = None) -> Found:
    """Yield the rows of a file, of stdin or of a URL; it may be compressed.

    `kind` is a key of `READERS` where the name does not say it. `InputError` for another format or
    a damaged file; damaged lines of .jsonl and .csv are broken.
    """
    kind = kind or (".jsonl" if path == STDIN else format_of(path))
    if kind not in READERS:
        raise InputError(
            f"{path_name(path)} has the format {kind or 'unknown'!r}: expected "
            f"{', '.join(READERS)}; source.format=jsonl says what another name holds"
        )
    return READERS[kind](path, encoding)


def source_of(given: str | Path) -> str:
    """Return the source that what a user named is for, as far as the name says."""
    is_rows = os.fspath(given).startswith("hub:") or format_of(given) in READERS
    return "rows" if is_rows else "text-dir" if os.path.isdir(given) else "text-file"


def _json(path: Place, encoding: str, read: Callable[..., Found]) -> Found:
    with opened_text(path, encoding, "\n") as file:
        yield from read(file, path_name(path))


def _csv(path: Place, encoding: str, delimiters: str = DELIMITERS) -> Found:
    """Yield rows by the names in the first line, every value a text.

    The delimiter is the one of those given that the first line has most of outside quotes; a line
    such as `sep=;` before it says which. Where a space follows each of them there, it is no part of
    any cell. Many tab-separated files have quotes that enclose nothing: no row goes over several
    lines there if each of these has a cell for every column.
    """
    csv.field_size_limit(LONGEST_CELL)  # a book has more than the 131,072 characters it was
    name = path_name(path)
    with opened_text(path, encoding, "") as file:
        first = file.readline()
        told = EXCEL.fullmatch(first)
        if told:
            delimiters, first = told[1], file.readline()
        start = 2 if told else 1  # number of the first line that the reader sees
        bare = QUOTED.sub("", first)
        delimiter = max(delimiters, key=bare.count)
        spaced = 0 < bare.count(delimiter) == bare.count(f"{delimiter} ")
        read: list[str] = []  # what the row at hand is made of
        noted = _noted(chain([first], file), read)
        lines = csv.reader(noted, delimiter=delimiter, skipinitialspace=spaced, strict=True)
        header: list[str] = []
        begins = start
        while True:
            read.clear()
            failed = None
            try:
                cells = next(lines, None)
            except csv.Error as error:
                cells, failed = [], error
            if cells is None:
                return
            if delimiter == "\t" and len(header) > 1 and (failed or len(read) > 1):
                rows = [line.rstrip("\r\n").split("\t") for line in read if line.strip()]
                if all(len(row) == len(header) for row in rows):
                    yield from (dict(zip(header, row, strict=True)) for row in rows)
                    cells, failed = [], None
            if failed:
                if not header or "unexpected end" in str(failed):
                    raise InputError(f"{name}: line {begins}: {reason(failed)}") from failed
                yield Broken(f"{name}: line {begins}: {reason(failed)}")
            if not header:
                header = [cell.strip() for cell in cells]
                named = [cell for cell in header if cell]  # of others there may be any number
                if len(set(named)) < len(named):
                    raise InputError(f"{name}: two columns have one name: {', '.join(header)}")
            elif len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
            elif cells:  # an empty line is no row
                found = f"has {len(cells)} cells, the header {len(header)}"
                yield Broken(f"{name}: line {begins} {found}")
            begins = start + lines.line_num


def _noted(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    for line in lines:
        read.append(line)
        yield line


def _parquet(path: Place, encoding: str) -> Found:
    parquet = require_extra("pyarrow.parquet", ".parquet")
    return _arrow(path, lambda file: parquet.ParquetFile(file).iter_batches(BATCH_ROWS))


def _saved(path: Place, encoding: str) -> Found:
    return _arrow(path, require_extra("pyarrow.ipc", ".arrow").open_stream)


def _arrow(path: Place, batches: Callable[[Any], "Iterator[RecordBatch]"]) -> Found:
    from pyarrow import ArrowException

    with opened(path) as file:
        try:
            for batch in batches(file):
                names = batch.schema.names
                columns = [_column(values) for values in batch.columns]
                for row in zip(*columns, strict=True):
                    yield dict(zip(names, row, strict=True))
        except (ArrowException, ValueError, OSError) as error:
            kind = format_of(path)[1:]
            raise InputError(f"cannot read {path_name(path)} as {kind}: {reason(error)}") from error


def _column(values: Any) -> list[Any]:  # noqa: ANN401 - an arrow array
    """Return the values of a column; an error in place of one that has none in Python."""
    try:
        found = values.to_pylist()
    except Exception:  # text that is not UTF-8, a date of the year 0: types of arrow and Python
        found = [_value(value) for value in values]
    return (
        [_plain(value, values.type) for value in found] if JSON_TYPE in str(values.type) else found
    )


def _value(value: Any) -> Any:  # noqa: ANN401 - an arrow scalar
    try:
        return value.as_py()
    except Exception as error:
        return error


def _plain(value: Any, kind: "DataType") -> Any:  # noqa: ANN401 - any value
    """Return what JSON in a column stands for: `datasets` writes values of mixed types so."""
    if str(kind) == JSON_TYPE and isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            return error
    if isinstance(value, list):
        return [_plain(part, kind.field(0).type) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part, kind.field(name).type) for name, part in value.items()}
    return value


READERS: dict[str, Callable[[Place, str], Found]] = {
    ".jsonl": partial(_json, read=line_rows),
    ".ndjson": partial(_json, read=line_rows),
    ".json": partial(_json, read=value_rows),
    ".csv": _csv,
    ".tsv": partial(_csv, delimiters="\t"),
    ".parquet": _parquet,
    ".arrow": _saved,
}
