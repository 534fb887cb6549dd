"""The `text-file` source: one UTF-8 file, whole or split at a separator."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from newllm_core.config import option
from newllm_core.data.pieces import with_last
from newllm_core.data.sources.base import DataSource, Document, Note, Split
from newllm_core.data.sources.decoding import CHUNK_BYTES, UTF8, known_encoding, read_chunks
from newllm_core.data.sources.files import input_file
from newllm_core.files.escapes import unescape

LINE_END = r"(?>\r\n?|\n)"
LONGEST_BLANK = 100
BLANK_LINE = rf"[ \t]{{0,{LONGEST_BLANK - 2}}}"


@dataclass(frozen=True)
class TextFileOptions:
    """How a file becomes documents."""

    document_separator: str | None = option(
        None, r"Text between documents, such as \n\n (escapes: \n \r \t \\); it belongs to neither."
    )
    encoding: str = option(UTF8, "Encoding of the text.")


class TextFile(DataSource):
    r"""One document, or one per part between occurrences of `document_separator`.

    A separator is found anywhere, not only on lines of its own: write `\n---\n` for a line. Its
    line ends are those of any system, and a blank line may hold spaces. Parts of white space alone
    are no documents. The file is read piece by piece.
    """

    Options = TextFileOptions

    def __init__(self, input: str | None = None, options: Any = None) -> None:  # noqa: ANN401
        super().__init__(input, options)
        given = self.options.document_separator
        self.separator = None if given is None else unescape(given, "source.document_separator")
        self.encoding = known_encoding(self.options.encoding)

    def documents(self) -> Iterator[Document | Note]:
        """Yield the parts of the file; `InputError` for none, or one of another encoding."""
        path = input_file("text-file", self.input, "a text file")
        yield from text_documents(path, self.separator, self.encoding)


def text_documents(
    path: Path, separator: str | None, encoding: str = UTF8, split: Split | None = None
) -> Iterator[Document]:
    """Yield the documents of one file, of this `split`, in parts where they are long.

    Those of white space alone are left out.
    """
    chunks = read_chunks(path, encoding)
    parts = with_last(chunks)
    if separator is not None:
        parts = split_chunks(chunks, separator, CHUNK_BYTES)
    begun = False
    for part, ends in parts:
        if begun or not ends or part.strip():
            yield Document(text=part, split=split, continues=not ends)
        begun = not ends


def split_chunks(chunks: Iterable[str], separator: str, longest: int) -> Iterator[tuple[str, bool]]:
    """Yield what is between separators, and whether it ends there.

    Line ends are those of any system, in the text and in the separator. A part longer than
    `longest` may come in several, of which only the last ends.
    """
    wanted, reach = _pattern(separator)
    rest = ""
    for chunk, is_last in with_last(chain(chunks, [""])):
        rest += chunk
        start = 0
        # What reaches the end may go on in the next chunk.
        while (found := wanted.search(rest, start)) and (is_last or found.end() < len(rest)):
            yield rest[start : found.start()], True
            start = found.end()
        if is_last:
            yield rest[start:], True
            return
        sure = found.start() if found else len(rest) - reach
        if sure - start >= longest:
            yield rest[start:sure], False
            start = sure
        rest = rest[start:]


def _pattern(separator: str) -> tuple[re.Pattern[str], int]:
    """Return what finds a separator, and a length that none exceeds."""
    lines = re.split(r"\r\n|\r|\n", separator)
    inner = [re.escape(line) if line.strip(" \t") else BLANK_LINE for line in lines[1:-1]]
    ends = [re.escape(lines[0]), *inner, *map(re.escape, lines[1:][-1:])]
    return re.compile(LINE_END.join(ends)), len(separator) + LONGEST_BLANK * len(lines)
