"""Cutting a text of any length into pieces that can be encoded one by one, in constant memory.

Joined, the ids of the pieces are those of the whole text, so nothing depends on their size; but for
words of a million characters, which are cut to be held at all.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

PIECE_CHARACTERS = 1 << 16
# A single word would take any amount of memory.
LONGEST_WORD = 1 << 20
# So many characters on either side decide whether a cut makes a difference.
MARGIN = 256
# A tokenizer that minds so many cuts in a row probably minds every one.
TRIES = 64
LONGEST_PIECE = 1 << 23
_CUT = re.compile(r"(?=[ \n\r\t]\S)")


class Encoder(Protocol):
    """What must be known of a tokenizer."""

    is_cut_at_words: bool

    def encode(self, text: str) -> list[int]:
        """Return ids of a text."""


def pieces(
    tokenizer: Encoder, chunks: Iterable[str], characters: int = PIECE_CHARACTERS
) -> Iterator[str]:
    """Cut the text that comes in `chunks`, always before a white space character.

    Plain byte-level tokenizers are known to join nothing across such a place (see
    `cut_at_words`). With any other one, a cut is made only where the text around it has the same
    ids with the cut as without it. Where there is no such place the text stays in one piece of up
    to `LONGEST_PIECE` characters.

    Args:
        tokenizer: what the pieces are for.
        chunks: the text, in order.
        characters: pieces but the last have at least so many.
    """
    if tokenizer.is_cut_at_words:
        yield from cut_at_words(chunks, max(1, characters))
        return
    cutter = _Cutter(tokenizer, characters)
    for chunk in chunks:
        cutter.text += chunk
        yield from cutter.cut(MARGIN)
    yield from cutter.cut(0)
    if cutter.text:
        yield cutter.text


class _Cutter:
    def __init__(self, tokenizer: Encoder, characters: int) -> None:
        self.text = ""
        self._tokenizer = tokenizer
        self._characters = self._looked_at = max(1, characters)

    def cut(self, margin: int) -> Iterator[str]:
        """Take pieces off the text where at least `margin` characters follow."""
        while (place := self._place(margin)) is not None:
            yield self.text[:place]
            self.text = self.text[place:]
            self._looked_at = self._characters

    def _place(self, margin: int) -> int | None:
        for match in islice(_CUT.finditer(self.text, self._looked_at), TRIES):
            place = match.start()
            if place + margin > len(self.text):
                break
            if self._is_harmless(place):
                return place
            # No second look at what was refused, however long the text gets.
            self._looked_at = place + 1
        return LONGEST_PIECE if len(self.text) > LONGEST_PIECE else None

    def _is_harmless(self, place: int) -> bool:
        before = self.text[max(0, place - MARGIN) : place]
        after = self.text[place : place + MARGIN]
        apart = self._tokenizer.encode(before) + self._tokenizer.encode(after)
        return apart == self._tokenizer.encode(before + after)


def cut_at_words(
    chunks: Iterable[str], characters: int, longest: int = LONGEST_WORD
) -> Iterator[str]:
    """Cut a text before a white space character that something visible follows.

    There it makes no difference to a byte-level BPE, in training or encoding: GPT-2's rule for
    words never joins anything across such a place, and never looks beyond it.

    A stretch of more than `longest` characters without such a place is cut there all the same,
    every `longest` characters from where it begins. No token spans such a cut. How the text is
    divided into chunks, and what `characters` is, has no influence on these cuts.

    Args:
        chunks: of the text, in order.
        characters: parts are at least so long, but the last and those beside long stretches.
        longest: at least `characters`.
    """
    rest = ""
    for chunk in chunks:
        rest += chunk
        start = 0
        while (place := _next_place(rest, start, characters, longest)) is not None:
            yield rest[start:place]
            start = place
        rest = rest[start:]
    if rest:
        yield rest


def _next_place(text: str, start: int, characters: int, longest: int) -> int | None:
    """Return where to cut next; None if more text is needed to say."""
    found = _CUT.search(text, start + characters, start + longest + 1)
    if found is not None:
        return found.start()
    if len(text) <= start + longest:
        return None
    # A long stretch: what is before it is a part of its own.
    begin = start
    for before in _CUT.finditer(text, start + 1, start + characters + 1):
        begin = before.start()
    return begin if begin > start else start + longest
