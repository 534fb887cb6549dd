"""stdout and stderr of a process that may have neither, or no room or reader behind them."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from newllm_core.errors import FULL_DISK


class Unheard:
    """stderr that may be lost: with its terminal closed or its disk full, work goes on."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it if that is possible."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is the stream's
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Make both exist, and let them show "?" for what a terminal or pipe cannot show.

    Bytes in names of files that are no text are shown escaped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            is_utf = "utf" in stream.encoding.lower()
            stream.reconfigure(errors="backslashreplace" if is_utf else "replace")
    if type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = Unheard(sys.stderr)  # type: ignore[assignment]


def cannot_write(error: OSError) -> bool:
    """Say whether stdout has no room behind it; files report theirs under their names."""
    return error.errno in FULL_DISK and error.filename is None


def flush_output() -> None:
    """Write what stdout still holds, if anybody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Drop what stdout still holds: nobody reads it, and it must not fail when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def text_chunks(file: str, encoding: str | None) -> Iterator[str]:
    """Yield the text of a file, or of stdin for "-", piece by piece; UTF-8 without an `encoding`.

    Raises:
        ConfigError: there is no such encoding.
        InputError: it cannot be read, or is not in that encoding.
    """
    from newllm_core.data.sources.decoding import UTF8, known_encoding, read_chunks
    from newllm_core.data.sources.files import located

    return read_chunks(located(file), known_encoding(encoding or UTF8, "--encoding"))
