"""How bytes of files and stdin become text; an error says where they do not."""

import codecs
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from newllm_core.config.values import convert
from newllm_core.data.sources.opening import format_of, opened, path_name
from newllm_core.errors import ConfigError, InputError, reason

CHUNK_BYTES = 1 << 20
BYTE_ORDER_MARK = "\ufeff"
UTF8 = "utf-8"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What is no text, by its first bytes.
OTHER_KINDS = {
    b"PK\3\4": "a zip archive (.docx and .epub are, too): save its text, or unpack it",
    b"%PDF-": "a PDF: save its text",
    b"\xd0\xcf\x11\xe0": "an old Office document: save its text",
    b"PAR1\x15": "parquet: name it .parquet and prepare it with newllm prepare --source rows",
    b"\x1f\x8b": "compressed: let its name end in .gz",
    b"\xfd7zXZ": "compressed: let its name end in .xz",
    b"\x28\xb5\x2f\xfd": "compressed: let its name end in .zst",
}


def known_encoding(name: str, option: str = "source.encoding") -> str:
    """Return `name`, or raise `ConfigError` where it, given as `option`, is no encoding of text."""
    try:
        "x".encode(name)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"{option} is {name!r}: give one that Python knows, such as cp1252 or utf-16"
        ) from error
    return name


def text_bytes(path: Path, encoding: str | None = None) -> int | None:
    """Return how long a text is as UTF-8, where its file says so: packed or encoded ones do not."""
    same = format_of(path) == path.suffix.lower() and codecs.lookup(encoding or UTF8).name == UTF8
    return path.stat().st_size if same and os.path.isfile(path) else None


def read_chunks(path: Path, encoding: str | None = None) -> Iterator[str]:
    """Yield the text of a file or stdin piece by piece, line ends as they are, without a BOM.

    It may be compressed. Where no encoding is given, it is UTF-8. `InputError`, with the byte
    offset, for another encoding.
    """
    name = path_name(path)
    decoder = codecs.getincrementaldecoder(encoding or UTF8)("strict")
    consumed = 0
    at_start = True
    with opened(path) as file:
        while True:
            data = file.read(CHUNK_BYTES)
            if not consumed:
                refuse_other_kinds(data, name)
            # The decoder keeps the bytes of an unfinished character for the next chunk, and
            # counts the position of an error from the first of them.
            origin = consumed - len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeError as error:
                raise InputError(
                    f"{name} is not {(encoding or UTF8).upper()}: {_place(error, origin)}; "
                    "convert it to UTF-8"
                    + (f", or say what it is: {_suggestion(data)}" if encoding else "")
                ) from error
            consumed += len(data)
            if at_start and text:
                text = text.removeprefix(BYTE_ORDER_MARK)
                at_start = False
            if text:
                yield text
            if not data:
                return


def refuse_other_kinds(start: bytes, name: str) -> None:
    """Raise `InputError` where a file called `name` begins as none of text does."""
    found = next((kind for first, kind in OTHER_KINDS.items() if start.startswith(first)), None)
    if found is not None:
        raise InputError(f"{name} is {found}")


def _place(error: UnicodeError, origin: int) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return reason(error)  # UTF-16 without its mark, for one: the whole text is of another kind
    return f"byte 0x{error.object[error.start]:02x} at offset {origin + error.start}"


def _suggestion(data: bytes) -> str:
    marked = data.startswith(UTF16_MARKS)
    return "--encoding utf-16" if marked else "--encoding cp1252 (Western Windows), or another"


@contextmanager
def opened_text(path: Path | str, encoding: str, newline: str) -> Iterator[io.TextIOWrapper]:
    """Open text as `opened` does; bytes that are none in `encoding` become lone surrogates."""
    with opened(path) as file:
        is_utf8 = codecs.lookup(encoding).name == UTF8
        bytes_of = io.BufferedReader(file)  # type: ignore[type-var]
        name = "utf-8-sig" if is_utf8 else encoding
        text = io.TextIOWrapper(bytes_of, name, errors="surrogateescape", newline=newline)
        try:
            start = bytes_of.peek(8)
            refuse_other_kinds(start, path_name(path))
            if is_utf8 and start.startswith(UTF16_MARKS):
                raise InputError(
                    f"{path_name(path)} is not UTF-8: say what it is, {_suggestion(start)}"
                )
            yield text
        except UnicodeError as error:
            raise InputError(f"{path_name(path)} is not {encoding}: {reason(error)}") from error
        finally:
            text.detach()  # stdin stays open
            bytes_of.detach()


def utf8(text: str, name: str) -> bytes:
    """Return the UTF-8 form of `text`; `InputError`, which calls it `name`, where it has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(error.object[error.start])
        raise InputError(f"{name} holds {found}, which is not Unicode text") from error


def unicode_text(text: str, name: str) -> str:
    """Return `text`, if it is one and has a UTF-8 form: see `utf8`."""
    utf8(convert(text, str, name), name)
    return text


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file with their ends; only a line feed ends a line."""
    held: list[str] = []  # of a line that goes on; joined once, however long it is
    for chunk in read_chunks(path):
        first, *lines = chunk.split("\n")
        held.append(first)
        for line in lines:
            yield "".join(held) + "\n"
            held = [line]
    rest = "".join(held)
    if rest:
        yield rest
