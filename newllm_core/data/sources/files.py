"""Checks of what the user gave as input, and strict UTF-8 reading. Errors name the file."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.files.from_strangers import regular_file

CHUNK_BYTES = 1 << 20
BYTE_ORDER_MARK = "\ufeff"


def refuse_input(source: str, given: str | None) -> None:
    """Raise `ConfigError` where a source that reads no file was given one."""
    if given is not None:
        raise ConfigError(f"source {source} reads no file, but input is {given!r}: leave it out")


def input_path(source: str, given: str | None, what: str) -> Path:
    """The existing file or folder that `source` needs; `what` names its kind for messages."""
    if not given:
        raise InputError(f"source {source} needs {what}: give it with --input PATH")
    path = Path(given)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise InputError(
            f"cannot read {path}: {reason(error)}; give {what} with --input PATH"
        ) from error
    return path


def input_file(source: str, given: str | None, what: str) -> Path:
    """Like `input_path`, for a file that is not empty; a pipe could be read only once."""
    path = input_path(source, given, what)
    if path.is_dir():
        raise InputError(f"{path} is a folder, source {source} needs {what}")
    regular_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty, source {source} needs {what}")
    return path


def input_folder(source: str, given: str | None, what: str) -> Path:
    """Like `input_path`, for a folder."""
    path = input_path(source, given, what)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder, source {source} needs {what}")
    return path


def read_chunks(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """Yield the text of a UTF-8 file piece by piece, line ends as they are, without a BOM.

    Raises:
        InputError: it cannot be opened, or is not UTF-8; the message has the byte offset.
    """
    regular_file(path)
    try:
        with path.open("rb") as file:
            yield from decode_chunks(file, str(path), chunk_bytes)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error


def decode_chunks(file: BinaryIO, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """Yield the text of an open file or pipe, see `read_chunks`; `name` is for errors."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    consumed = 0
    at_start = True
    while True:
        data = file.read(chunk_bytes)
        # The decoder keeps the bytes of an unfinished character for the next chunk, and
        # counts the position of an error from the first of them.
        origin = consumed - len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                f"{origin + error.start}; convert it to UTF-8"
            ) from error
        consumed += len(data)
        if at_start and text:
            text = text.removeprefix(BYTE_ORDER_MARK)
            at_start = False
        if text:
            yield text
        if not data:
            return


def unicode_text(text: str, name: str) -> str:
    """Return `text`.

    Raises:
        InputError: it has no UTF-8 form.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(error.object[error.start])
        raise InputError(f"{name} holds {found}, which is not Unicode text") from error
    return text


def read_lines(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends; only a line feed ends a line."""
    held: list[str] = []  # of a line that goes on; joined once, however long it is
    for chunk in read_chunks(path, chunk_bytes):
        first, *lines = chunk.split("\n")
        held.append(first)
        for line in lines:
            yield "".join(held) + "\n"
            held = [line]
    rest = "".join(held)
    if rest:
        yield rest
