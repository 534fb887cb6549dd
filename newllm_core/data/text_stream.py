"""The text of token ids as they come: whole characters only, white space as in the whole text."""

import codecs
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from newllm_core.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import numpy as np


# So many tokens before say how one reads: whether it has a space before it.
MOST_BEFORE = 8
LONGEST_CHARACTER = 4
COUNTED_AT_ONCE = 1 << 20


def text_stream(
    tokenizer: TextTokenizer, state: Sequence[int] = ()
) -> "_ByteStream | _WindowStream":
    """Return what turns ids into text one by one, from the beginning or from a `state` of its own.

    `push` returns the text that is whole now that a token came too, `follow` goes on behind ids
    whose text is known already, and `state` returns what is needed to go on. Control tokens have
    no text, and an unfinished character has none yet. `ValueError` for a state of another one.
    """
    return (_ByteStream if tokenizer.is_byte_level else _WindowStream)(tokenizer, state)


def count_line_ends(tokenizer: TextTokenizer, tokens: "np.ndarray") -> int | None:
    """Count line feeds in the text of `tokens` [T]; None where tokens do not say what it was."""
    import numpy as np

    if not tokenizer.is_byte_level:
        return None
    bytes_of = (tokenizer.bytes_of(token) or b"" for token in range(tokenizer.vocab_size))
    line_ends = np.array([found.count(b"\n") for found in bytes_of])
    begins = range(0, len(tokens), COUNTED_AT_ONCE)
    return sum(int(line_ends[tokens[i : i + COUNTED_AT_ONCE]].sum()) for i in begins)


class _ByteStream:
    """For tokens that are bytes: the state is the bytes of an unfinished character."""

    def __init__(self, tokenizer: TextTokenizer, state: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if self._decoder.decode(bytes(state)):
            raise ValueError("the bytes are more than the beginning of a character")

    def follow(self, ids: Sequence[int]) -> None:
        self._decoder.reset()

    def push(self, token: int) -> str:
        return self._decoder.decode(self._tokenizer.bytes_of(token) or b"")

    def state(self) -> list[int]:
        return list(self._decoder.getstate()[0])


class _WindowStream:
    """For any other tokenizer: the state is the number of ids whose text is out, then ids.

    How a token reads may depend on the one before it (a space, or none), so it is decoded together
    with those that made the text before.
    """

    def __init__(self, tokenizer: TextTokenizer, state: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._shown, *self._ids = state or [0]
        if not 0 <= self._shown <= len(self._ids) <= MOST_BEFORE + LONGEST_CHARACTER:
            raise ValueError("the ids are not those of an unfinished text")
        if not all(0 <= token < tokenizer.vocab_size for token in self._ids):
            raise ValueError("the ids are not those of tokens")

    def follow(self, ids: Sequence[int]) -> None:
        self._ids = []
        for token in ids[-MOST_BEFORE:]:
            # What a message or a document begins with has nothing before it.
            self._ids = [] if self._tokenizer.is_control(token) else [*self._ids, token]
        self._shown = len(self._ids)

    def push(self, token: int) -> str:
        if self._tokenizer.spelling(token) is None:
            return ""
        self._ids.append(token)
        whole = len(self._ids) - self._unfinished()
        if whole <= self._shown:
            return ""
        decode = self._tokenizer.decode
        text = decode(self._ids[:whole])[len(decode(self._ids[: self._shown])) :]
        if decode(self._ids[self._shown : whole]):
            del self._ids[: self._shown]
            whole -= self._shown
        elif whole > MOST_BEFORE:  # what has no text by itself may still take a space away
            whole -= 1
            del self._ids[whole]
        self._shown = whole
        return text

    def state(self) -> list[int]:
        return [self._shown, *self._ids]

    def _unfinished(self) -> int:
        """Return how many of the last ids begin a character that others must end.

        All of them, if one of these holds the end of another character too.
        """
        data, sizes = b"", []
        for token in reversed(self._ids):
            part = self._tokenizer.bytes_of(token)
            if part is None or len(data) >= LONGEST_CHARACTER:
                break
            data = part + data
            sizes.append(len(part))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(data)
        ends = [0, *accumulate(sizes)]
        begun = len(decoder.getstate()[0])
        return ends.index(begun) if begun in ends else len(self._ids)
