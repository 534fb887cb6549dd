"""Cutting a text of any length into pieces that can be encoded one by one, in constant memory.

Joined, the ids of the pieces are those of the whole text, so nothing depends on their size.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from newllm_core.data.tokenizer import TextTokenizer

PIECE_CHARACTERS = 1 << 16
# So many characters on either side decide whether a cut makes a difference.
MARGIN = 256
# A tokenizer that minds so many cuts in a row probably minds every one.
TRIES = 64
_CUT = re.compile(r"(?=[ \n\r\t]\S)")


def pieces(
    tokenizer: TextTokenizer, chunks: Iterable[str], characters: int = PIECE_CHARACTERS
) -> Iterator[str]:
    """Cut the text that comes in `chunks`, always before a white space character.

    Plain byte-level tokenizers are known to join nothing across such a place (see
    `cut_at_words`). With any other one, a cut is made only where the text around it has the same
    ids with the cut as without it. Where there is no such place the text stays in one piece.

    Args:
        tokenizer: what the pieces are for.
        chunks: the text, in order.
        characters: pieces but the last have at least so many.
    """
    cutter = _Cutter(tokenizer, characters)
    for chunk in chunks:
        cutter.text += chunk
        yield from cutter.cut(MARGIN)
    yield from cutter.cut(0)
    if cutter.text:
        yield cutter.text


class _Cutter:
    def __init__(self, tokenizer: TextTokenizer, characters: int) -> None:
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
                return None
            if self._tokenizer.is_cut_at_words or self._is_harmless(place):
                return place
            # No second look at what was refused, however long the text gets.
            self._looked_at = place + 1
        return None

    def _is_harmless(self, place: int) -> bool:
        before = self.text[max(0, place - MARGIN) : place]
        after = self.text[place : place + MARGIN]
        apart = self._tokenizer.encode(before) + self._tokenizer.encode(after)
        return apart == self._tokenizer.encode(before + after)
