"""How bytes of files and stdin become text; an error says where they do not."""

import codecs
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from newllm_core.config.values import convert
from newllm_core.data.sources.opening import STDIN, format_of, opened, path_name
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


def read_chunks(path: Path, encoding: str = UTF8) -> Iterator[str]:
    """Yield the text of a file or stdin piece by piece, line ends as they are, without a BOM.

    It may be compressed. `InputError`, with the line, where it is not in that encoding.
    """
    with opened_text(path, encoding, "\n") as file:
        yield from _decoded(iter(lambda: file.read(CHUNK_BYTES), ""), path, encoding)


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file with their ends; only a line feed ends a line."""
    with opened_text(path, None, "\n") as file:
        yield from _decoded(file, path, None)


def _decoded(parts: Iterable[str], path: Path, encoding: str | None) -> Iterator[str]:
    """Yield the parts of a text; `InputError` at the first byte that is none in `encoding`."""
    line = 1
    for part in parts:
        try:
            part.encode()  # as `opened_text` has them, bytes that are no text cannot be encoded
        except UnicodeEncodeError as error:
            line += part.count("\n", 0, error.start)
            byte = ord(part[error.start]) & 0xFF
            raise _other_encoding(path, encoding, f"byte 0x{byte:02x} in line {line}") from error
        line += part.count("\n")
        yield part


def _other_encoding(
    path: Path | str,
    encoding: str | None,
    found: str,
    other: str = "cp1252 (Western Windows), or another",
) -> InputError:
    """Return the error for what was `found` where text is not in `encoding`, but in `other`."""
    told = f", or say what it is: --encoding {other}" if encoding else ""
    name = (encoding or UTF8).upper()
    return InputError(f"{path_name(path)} is not {name}: {found}; convert it to UTF-8{told}")


def refuse_other_kinds(start: bytes, name: str) -> None:
    """Raise `InputError` where a file called `name` begins as none of text does."""
    found = next((kind for first, kind in OTHER_KINDS.items() if start.startswith(first)), None)
    if found is not None:
        if name == path_name(STDIN):  # which has no other name to be given, and no ending
            found = found.partition(":")[0] + ": pipe its text, as zcat FILE | newllm … does"
        raise InputError(f"{name} is {found}")


@contextmanager
def opened_text(path: Path | str, encoding: str | None, newline: str) -> Iterator[io.TextIOWrapper]:
    """Open text as `opened` does; bytes that are none in `encoding` become lone surrogates.

    An `encoding` of None is UTF-8 too, for who has no option for another one.
    """
    with opened(path) as file:
        name = codecs.lookup(encoding or UTF8).name
        bytes_of = io.BufferedReader(file)  # type: ignore[type-var]
        text = io.TextIOWrapper(bytes_of, name, errors="surrogateescape", newline=newline)
        try:
            start = bytes_of.peek(8)
            refuse_other_kinds(start, path_name(path))
            if name == UTF8 and start.startswith(UTF16_MARKS):
                raise _other_encoding(path, encoding, "it begins as UTF-16 does", "utf-16")
            mark = BYTE_ORDER_MARK.encode(name, "ignore")
            # A codec that writes a mark for no text at all takes it away when it reads.
            if start.startswith(mark) and not "".encode(name):
                bytes_of.read(len(mark))
            yield text
        except UnicodeError as error:
            raise _other_encoding(path, encoding, reason(error)) from error
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
