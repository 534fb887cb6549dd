"""Files and stdin as sources read them: found, opened, decompressed, decoded. Errors name them."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from newllm_core.config.values import convert
from newllm_core.errors import ConfigError, InputError, UserError, reason
from newllm_core.files.from_strangers import regular_file

CHUNK_BYTES = 1 << 20
BYTE_ORDER_MARK = "\ufeff"
UTF8 = "utf-8"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
STDIN = Path("-")
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
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what reading compressed data raises


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
    if path.is_dir():
        raise InputError(f"{path} is a folder, source {source} needs {what}")
    regular_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty, source {source} needs {what}")
    return path


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files of a folder and below it, in the order of their relative paths.

    Names that begin with a dot are left out: they are of tools, such as .git.
    """
    found = sorted(path.relative_to(folder).parts for path in folder.rglob(pattern))
    paths = (
        folder.joinpath(*names) for names in found if not any(n.startswith(".") for n in names)
    )
    return [path for path in paths if path.is_file()]


def known_encoding(name: str, option: str = "source.encoding") -> str:
    """Return `name`, or raise `ConfigError` where it, given as `option`, is no encoding of text."""
    try:
        "x".encode(name)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"{option} is {name!r}: give one that Python knows, such as cp1252 or utf-16"
        ) from error
    return name


def require_extra(module: str, what: str) -> Any:  # noqa: ANN401 - an optional module
    """Import a module that only `what` needs; `ConfigError` where its package is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or package).partition(".")[0] != package:
            raise
        raise ConfigError(
            f"reading {what} needs {package}: pip install 'newllm[datasets]'"
        ) from error


def _zstd(file: BinaryIO) -> Any:  # noqa: ANN401
    pyarrow = require_extra("pyarrow", ".zst")
    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))


DECOMPRESSORS: dict[str, Any] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}


def format_of(path: str | Path) -> str:
    """Return the ending of a name that says how it is written: .jsonl for `a.JSONL.gz`."""
    path = Path(path)
    return (Path(path.stem) if path.suffix.lower() in DECOMPRESSORS else path).suffix.lower()


@contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file, stdin or a URL (text) for reading; what is compressed is decompressed.

    `InputError` if it cannot be opened, or reading it failed in the body.
    """
    kind = Path(path).suffix.lower()
    try:
        with _raw(path) as raw:
            yield DECOMPRESSORS[kind](raw) if kind in DECOMPRESSORS else raw
    except DAMAGED as error:
        packed = f" as {kind[1:]}" if kind in DECOMPRESSORS else ""
        raise InputError(f"cannot read {path_name(path)}{packed}: {reason(error)}") from error


@contextmanager
def _raw(path: Path | str) -> Iterator[Any]:
    if isinstance(path, str):
        import fsspec

        try:
            with fsspec.open(path, "rb") as file:
                yield file
        except UserError:
            raise
        except Exception as error:  # the network's own types
            raise InputError(f"cannot read {path}: {reason(error)}") from error
    elif path == STDIN:
        if sys.stdin is None:
            raise InputError("stdin is closed: give a file")
        yield sys.stdin.buffer
    else:
        with regular_file(path).open("rb") as file:
            yield file


def path_name(path: Path | str) -> str:
    """Return what messages call a file."""
    return "stdin" if path == STDIN else str(path)


def text_bytes(path: Path, encoding: str | None = None) -> int | None:
    """Return how long a text is as UTF-8, where its file says so: packed or encoded ones do not."""
    same = format_of(path) == path.suffix.lower() and codecs.lookup(encoding or UTF8).name == UTF8
    return path.stat().st_size if same and path.is_file() else None


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
            except UnicodeDecodeError as error:
                byte = f"byte 0x{error.object[error.start]:02x} at offset {origin + error.start}"
                raise InputError(
                    f"{name} is not {(encoding or UTF8).upper()}: {byte}; convert it to UTF-8"
                    + (f", or say what it is: {_suggestion(error.object)}" if encoding else "")
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
        except UnicodeDecodeError as error:
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
