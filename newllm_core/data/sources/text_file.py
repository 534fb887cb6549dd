"""The `text-file` source: one UTF-8 file, whole or split at a separator."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newllm_core.config import option
from newllm_core.data.sources.base import DataSource, Document
from newllm_core.data.sources.files import CHUNK_BYTES, input_file, read_chunks
from newllm_core.files.escapes import unescape


@dataclass(frozen=True)
class TextFileOptions:
    """How a file becomes documents."""

    document_separator: str | None = option(
        None,
        r"Text between documents, such as \n\n (escapes: \n \r \t \\); it belongs to neither.",
    )


class TextFile(DataSource):
    r"""One document, or one per part between occurrences of `document_separator`.

    A separator is found anywhere, not only on lines of its own: write `\n---\n` for a line.
    Parts of white space alone are no documents. The file is read piece by piece.
    """

    Options = TextFileOptions

    def __init__(self, input: str | None = None, options: Any = None) -> None:  # noqa: ANN401
        super().__init__(input, options)
        separator = self.options.document_separator
        self.separator = (
            None if separator is None else unescape(separator, "source.document_separator")
        )

    def documents(self) -> Iterator[Document]:
        """Yield the parts of the file in their order.

        Raises:
            InputError: no file, an empty one, or one that is not UTF-8.
        """
        path = input_file("text-file", self.input, "a UTF-8 text file")
        yield from text_documents(path, self.separator)


def text_documents(
    path: Path, separator: str | None, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Document]:
    """Yield the documents of one file, in parts where they are long.

    Those of white space alone are left out.
    """
    chunks = read_chunks(path, chunk_bytes)
    parts = whole(chunks) if separator is None else split_chunks(chunks, separator)
    begun = False
    for part, ends in parts:
        if begun or not ends or part.strip():
            yield Document(text=part, continues=not ends)
        begun = not ends


def whole(chunks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield each chunk, and whether it is the last."""
    held = None
    for chunk in chunks:
        if held is not None:
            yield held, False
        held = chunk
    if held is not None:
        yield held, True


def split_chunks(
    chunks: Iterable[str], separator: str, longest: int = CHUNK_BYTES
) -> Iterator[tuple[str, bool]]:
    """Yield what `"".join(chunks).split(separator)` gives, and whether it ends there.

    A part longer than `longest` may come in several, of which only the last ends.
    """
    rest = ""
    for chunk in chunks:
        rest += chunk
        start = 0
        while (found := rest.find(separator, start)) >= 0:
            yield rest[start:found], True
            start = found + len(separator)
        # The last characters may be the first of a separator.
        sure = len(rest) - len(separator) + 1
        if sure - start >= longest:
            yield rest[start:sure], False
            start = sure
        rest = rest[start:]
    yield rest, True
