"""Cutting a text of any length into pieces that can be encoded one by one, in constant memory.

Joined, the ids of the pieces are those of the whole text, so nothing depends on their size; but for
words of a million characters, which are cut to be held at all.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

# So many characters on either side decide whether a cut makes a difference.
MARGIN = 256
# A tokenizer that minds so many cuts in a row probably minds every one.
TRIES = 64
LONGEST_PIECE = 1 << 23
Part = TypeVar("Part")
_CUT = re.compile(r"(?=[ \n\r\t]\S)")


class HarmlessCuts:
    """Cuts a text where what is around a place has the same ids with the cut as without it.

    Where there is no such place the text stays in one piece of up to `LONGEST_PIECE` characters.
    Pieces but the last have at least so many `characters`; `encode` gives the ids of a text.
    """

    def __init__(self, encode: Callable[[str], list[int]], characters: int) -> None:
        self._text = ""
        self._encode = encode
        self._characters = self._looked_at = max(1, characters)

    def pieces(self, chunks: Iterable[str]) -> Iterator[str]:
        """Cut the text that comes in `chunks`, in order."""
        for chunk, is_last in with_last(chain(chunks, [""])):
            self._text += chunk
            while (place := self._place(0 if is_last else MARGIN)) is not None:
                yield self._text[:place]
                self._text = self._text[place:]
                self._looked_at = self._characters
        if self._text:
            yield self._text

    def _place(self, margin: int) -> int | None:
        """Return where to cut, with at least `margin` characters behind; None if nowhere."""
        for match in islice(_CUT.finditer(self._text, self._looked_at), TRIES):
            place = match.start()
            if place + margin > len(self._text):
                break
            if self._is_harmless(place):
                return place
            # No second look at what was refused, however long the text gets.
            self._looked_at = place + 1
        return LONGEST_PIECE if len(self._text) > LONGEST_PIECE else None

    def _is_harmless(self, place: int) -> bool:
        before = self._text[max(0, place - MARGIN) : place]
        after = self._text[place : place + MARGIN]
        return self._encode(before) + self._encode(after) == self._encode(before + after)


def with_last(parts: Iterable[Part]) -> Iterator[tuple[Part, bool]]:
    """Yield each part, and whether it is the last."""
    held: list[Part] = []
    for part in parts:
        if held:
            yield held.pop(), False
        held.append(part)
    if held:
        yield held[0], True


def in_batches(
    parts: Iterable[Part], size: Callable[[Part], int], wanted: int
) -> Iterator[list[Part]]:
    """Yield parts together as soon as their sizes have the sum `wanted`, and the rest at last."""
    batch: list[Part] = []
    length = 0
    for part in parts:
        batch.append(part)
        length += size(part)
        if length >= wanted:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def cut_at_words(chunks: Iterable[str], characters: int, longest: int) -> Iterator[str]:
    """Cut a text before a white space character that something visible follows.

    There it makes no difference to a byte-level BPE, in training or encoding: GPT-2's rule for
    words never joins anything across such a place, and never looks beyond it. Parts have at least
    so many `characters`, but the last and those beside long stretches.

    A stretch of more than `longest` characters without such a place is cut there all the same,
    every `longest` characters from where it begins. No token spans such a cut. How the text is
    divided into chunks, and what `characters` is, has no influence on these cuts.
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
