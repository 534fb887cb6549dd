"""Rows written as JSON: one on every line, in one array, or one after another.

Foreign JSON is not strict: NaN, numbers of any size and raw tabs are read, and of two equal keys
the last one counts, as everywhere else.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from newllm_core.data.sources.base import Broken
from newllm_core.errors import InputError, reason

Row = dict[str, Any]

CHUNK_CHARACTERS = 1 << 20
LONGEST_WORD = 16  # -Infinity, or an escaped character
# No number is ever content, and Python refuses integers of more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=float, strict=False)
_KINDS: dict[type[Any], str] = dict.fromkeys((int, float), "a number") | {
    **{str: "text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
}
_ARRAY = re.compile(r"\s*\[\s*(\{|$)")
_WRAPPED = re.compile(r'\s*\{\s*"(data|rows)"\s*:\s*(?=\[)')
_SPACE = re.compile(r"\s*")


def kind_of(value: object) -> str:
    """Return what JSON calls a value; of a parquet file there may be others, by their own names."""
    return _KINDS.get(type(value), type(value).__name__)


def line_rows(file: TextIO, name: str) -> Iterator[Row | Broken]:
    """Yield the object on every line of an open file; one that starts as an array is one.

    A line that is none is broken, and blank ones do not count. `name` is for messages.
    """
    number, line = 1, file.readline(CHUNK_CHARACTERS)
    if _ARRAY.match(line):
        yield from value_rows(file, name, line)
        return
    if not line.endswith("\n"):
        line += file.readline()
    while line:
        if not line.isspace():
            try:
                yield _row(_DECODER.decode(line), f"{name}: line {number}")
            except (ValueError, RecursionError) as error:
                yield Broken(f"{name}: line {number} is not JSON: {_why(error)}")
        line = file.readline()
        number += 1


def value_rows(file: TextIO, name: str, begun: str = "") -> Iterator[Row | Broken]:
    """Yield the objects of an array, or of one after another, however they are laid out.

    An array may be wrapped: `{"data": [...]}` or `{"rows": [...]}`. Only one row is in memory.
    `begun` was read of the file before. `InputError`, which calls it `name`, if it is damaged.
    """
    values = _Values(file, name, begun)
    wrapped = values.skip(_WRAPPED)
    number = 0
    while first := values.peek():
        in_array = first == "["
        for value in values.array() if in_array else [values.value()]:
            number += 1
            yield _row(value, f"{name}: row {number}")
        if wrapped:
            values.end_of_object()


def _row(value: object, where: str) -> Row | Broken:
    if isinstance(value, dict):
        return value
    return Broken(f'{where} holds {kind_of(value)}, expected an object, as {{"text": …}}')


def _why(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else reason(error)


class _Values:
    """JSON values of a text that is read piece by piece."""

    def __init__(self, file: TextIO, name: str, begun: str) -> None:
        self._file = file
        self._name = name
        self._text = begun
        self._place = 0
        self._before = 0  # characters before the text that is held

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Skip a pattern if the text goes on with it."""
        self.peek()
        found = pattern.match(self._text, self._place)
        self._place = found.end() if found else self._place
        return found is not None

    def peek(self) -> str:
        """Return the next character that is not white space; nothing at the end."""
        while True:
            space = _SPACE.match(self._text, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def array(self) -> Iterator[object]:
        """Yield the values of the array that begins here."""
        self._place += 1
        if self.peek() == "]":
            self._place += 1
            return
        while True:
            yield self.value()
            mark = self.peek()
            if mark not in ("]", ","):
                raise self._damaged(self._place, "',' or ']' is missing")
            self._place += 1
            if mark == "]":
                return
            self.peek()

    def end_of_object(self) -> None:
        """Read the rest of the only object, of which one value was read."""
        self.peek()
        self._text, self._place = "{" + self._text[self._place :].removeprefix(","), 0
        self.value()
        if self.peek():
            raise self._damaged(self._place, "something follows the object that holds all rows")

    def value(self) -> object:
        """Return the value that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                at_end = error.pos > len(self._text) - LONGEST_WORD
                cut_off = at_end or error.msg.startswith("Unterminated")
                if not (cut_off and self._more()):
                    raise self._damaged(min(error.pos, len(self._text)), error.msg) from error
            except RecursionError as error:
                raise self._damaged(self._place, _why(error)) from error
            else:
                # A number may go on.
                if end < len(self._text) or not self._more():
                    self._place = end
                    return value

    def _more(self) -> bool:
        """Read as much as is held already, so that a long value is not read again and again."""
        rest = self._text[self._place :]
        read = self._file.read(max(CHUNK_CHARACTERS, len(rest)))
        if read:
            self._before += self._place
            self._text, self._place = rest + read, 0
        return bool(read)

    def _damaged(self, place: int, problem: str) -> InputError:
        return InputError(
            f"{self._name} is not JSON at character {self._before + place}: {problem}; objects on "
            "lines of their own may be damaged in a file named .jsonl"
        )
