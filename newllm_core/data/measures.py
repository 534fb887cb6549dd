"""How text is counted: bytes, characters, words and lines. Only a line feed ends a line."""

import io

from newllm_core.data.sources.base import Document


def contents(document: Document) -> tuple[str, ...]:
    """Return the text of a document, or the contents of its messages; none for token ids."""
    if document.messages is not None:
        return tuple(message.content for message in document.messages)
    return () if document.text is None else (document.text,)


def count_bytes(text: str) -> int:
    """Return UTF-8 bytes of `text`."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def count_words(text: str) -> int:
    """Count words between white space, and line ends: the convention of WikiText's perplexities."""
    # Line by line: a list of all words of a book takes many times its size.
    return sum(len(line.split()) for line in io.StringIO(text)) + text.count("\n")


def count_lines(text: str) -> int:
    """Return lines of `text`; what follows the last line feed is one too."""
    return text.count("\n") + (text != "" and not text.endswith("\n"))
