"""How text is counted: bytes, characters, words and lines. Only a line feed ends a line."""

from functools import cache
from typing import TYPE_CHECKING

from newllm_core.data.sources.base import Document

if TYPE_CHECKING:
    import numpy as np

# Shorter texts are split; longer ones are looked at in blocks, which takes a fraction of the time.
_SHORT = 1 << 11
_BLOCK = 1 << 18
_LAST_SPACE = 0x3000


def contents(document: Document) -> tuple[str, ...]:
    """The texts of a document: its text, or the contents of its messages; none for token ids."""
    if document.messages is not None:
        return tuple(message.content for message in document.messages)
    return () if document.text is None else (document.text,)


def count_bytes(text: str) -> int:
    """Return UTF-8 bytes of `text`."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def count_words(text: str) -> int:
    """Words between white space plus line ends: the convention of WikiText's perplexities."""
    import numpy as np

    line_ends = text.count("\n")
    if len(text) < _SHORT:
        return len(text.split()) + line_ends
    words, before = 0, True
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK].encode("utf-32-le", "surrogatepass")
        spaces = _space_table().take(np.frombuffer(block, dtype="<u4"), mode="clip")
        # A word begins where something else than white space follows white space.
        words += int(np.count_nonzero(spaces[:-1] > spaces[1:])) + (before and not spaces[0])
        before = bool(spaces[-1])
    return words + line_ends


@cache
def _space_table() -> "np.ndarray":
    """Return whether a code is white space, for all up to the last one that is, and one more."""
    import numpy as np

    return np.array([chr(code).isspace() for code in range(_LAST_SPACE + 2)])


def count_lines(text: str) -> int:
    """Return lines of `text`; what follows the last line feed is one too."""
    return text.count("\n") + (text != "" and not text.endswith("\n"))
