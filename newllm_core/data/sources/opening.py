"""How sources open files, stdin and URLs; what is compressed is decompressed."""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from newllm_core.errors import ConfigError, InputError, UserError, reason
from newllm_core.files.from_strangers import regular_file

STDIN = Path("-")
# What reading compressed data raises.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


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
