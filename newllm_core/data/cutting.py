"""Long texts in parts that can be encoded one by one."""

import re
from collections.abc import Iterable, Iterator

_PLACE = re.compile(r"(?=[ \n\r\t]\S)")


def cut_at_words(chunks: Iterable[str], characters: int, longest: int) -> Iterator[str]:
    """Cut a text before a white space character that something visible follows.

    There it makes no difference to a byte-level BPE, in training or encoding: GPT-2's rule for
    words never joins anything across such a place, and never looks beyond it.

    A stretch of more than `longest` characters without such a place is cut there all the same,
    every `longest` characters from where it begins: a single word of millions of characters would
    take any amount of memory. No token spans such a cut. How the text is divided into chunks, and
    what `characters` is, has no influence on these cuts.

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
    """Where to cut next; None if more text is needed to say."""
    found = _PLACE.search(text, start + characters, start + longest + 1)
    if found is not None:
        return found.start()
    if len(text) <= start + longest:
        return None
    # A long stretch: what is before it is a part of its own.
    begin = start
    for before in _PLACE.finditer(text, start + 1, start + characters + 1):
        begin = before.start()
    return begin if begin > start else start + longest
