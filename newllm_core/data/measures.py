"""How text is counted: bytes, words and lines. Only a line feed ends a line."""

from newllm_core.data.sources.base import Document

_BLOCK = 1 << 20


def contents(document: Document) -> tuple[str, ...]:
    """The texts of a document: its text, or the contents of its messages; none for token ids."""
    if document.messages is not None:
        return tuple(message.content for message in document.messages)
    return () if document.text is None else (document.text,)


def count_bytes(text: str) -> int:
    """UTF-8 bytes of `text`."""
    return len(text.encode("utf-8"))


def count_words(text: str) -> int:
    """Words between white space plus line ends: the convention of WikiText's perplexities."""
    words = start = 0
    while start < len(text):
        # Block by block: the words of a long text would take many times its memory.
        end = text.find("\n", start + _BLOCK) + 1 or len(text)
        words += len(text[start:end].split())
        start = end
    return words + text.count("\n")


def count_lines(text: str) -> int:
    """Lines of `text`; what follows the last line feed is one too."""
    return text.count("\n") + (text != "" and not text.endswith("\n"))
