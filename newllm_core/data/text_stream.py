"""The text of token ids as they come: whole characters only, white space as in the whole text."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from newllm_core.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import numpy as np

# No character has more tokens: what does not become one by then never will.
LONGEST_CHARACTER = 8
COUNTED_AT_ONCE = 1 << 20


class TextStream(ABC):
    """Turns ids into text one by one; control tokens have none.

    Joined, the pieces are the text of all ids together, without a character that is not finished.
    """

    @abstractmethod
    def follow(self, ids: Sequence[int]) -> None:
        """Go on behind `ids`, a text that is known already."""

    @abstractmethod
    def push(self, token: int) -> str:
        """Return the text that is whole now that `token` came too."""

    @abstractmethod
    def state(self) -> list[int]:
        """Return what is needed to go on; `text_stream` takes it."""


def text_stream(tokenizer: TextTokenizer, state: Sequence[int] = ()) -> TextStream:
    """Return the stream that fits `tokenizer`, from its beginning or from a `state`.

    Raises:
        ValueError: the state is not one of this tokenizer's.
    """
    return (_ByteStream if tokenizer.is_byte_level else _WindowStream)(tokenizer, state)


def token_bytes(tokenizer: TextTokenizer, token: int) -> bytes:
    """Return UTF-8 bytes of a token of a byte-level tokenizer; a control token has none.

    A character may be spread over several tokens.
    """
    spelling = tokenizer.spelling(token) or ""
    try:
        return bytes([_BYTES[letter] for letter in spelling])
    except KeyError:  # added tokens are written as they are
        return spelling.encode("utf-8")


def count_line_ends(tokenizer: TextTokenizer, tokens: "np.ndarray[Any, Any]") -> int | None:
    """Line feeds in the text of `tokens` [T]; None where tokens do not say what the text was."""
    import numpy as np

    if not tokenizer.is_byte_level:
        return None
    counts = [token_bytes(tokenizer, token).count(b"\n") for token in range(tokenizer.vocab_size)]
    # Occurrences of every id, without a copy of the tokens.
    times = np.zeros(tokenizer.vocab_size, np.int64)
    for begin in range(0, len(tokens), COUNTED_AT_ONCE):
        part = tokens[begin : begin + COUNTED_AT_ONCE]
        times += np.bincount(part, minlength=tokenizer.vocab_size)
    return int(times @ np.array(counts, np.int64))


def _byte_letters() -> dict[str, int]:
    """Return the byte behind each letter of a byte-level vocabulary (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printable))
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    return dict(zip(letters, printable + others, strict=True))


_BYTES = _byte_letters()


class _ByteStream(TextStream):
    """For tokens that are bytes: the state is the bytes of an unfinished character."""

    def __init__(self, tokenizer: TextTokenizer, state: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._bytes: dict[int, bytes] = {}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if self._decoder.decode(bytes(state)):
            raise ValueError("the bytes are more than the beginning of a character")

    def follow(self, ids: Sequence[int]) -> None:
        self._decoder.reset()

    def push(self, token: int) -> str:
        data = self._bytes.get(token)
        if data is None:
            data = self._bytes[token] = token_bytes(self._tokenizer, token)
        return self._decoder.decode(data)

    def state(self) -> list[int]:
        return list(self._decoder.getstate()[0])


class _WindowStream(TextStream):
    """For any other tokenizer: the state is the number of ids whose text is out, then ids.

    How a token reads may depend on the one before it (a space, or none), so it is decoded together
    with those that made the text before.
    """

    def __init__(self, tokenizer: TextTokenizer, state: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._shown, *self._ids = state or [0]
        if not 0 <= self._shown <= len(self._ids) <= 2 * LONGEST_CHARACTER:
            raise ValueError("the ids are not those of an unfinished text")
        tokenizer.decode(self._ids)  # raises for what is no id

    def follow(self, ids: Sequence[int]) -> None:
        # One token would do, but it may be the middle of a character.
        for count in range(1, LONGEST_CHARACTER):
            self._ids = list(ids[-count:])
            if "\ufffd" not in self._tokenizer.decode(self._ids):
                break
        self._shown = len(self._ids)

    def push(self, token: int) -> str:
        if self._tokenizer.spelling(token) is None:
            return ""
        self._ids.append(token)
        shown = self._tokenizer.decode(self._ids[: self._shown])
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._shown < LONGEST_CHARACTER:
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return text[len(shown) :]

    def state(self) -> list[int]:
        return [self._shown, *self._ids]
