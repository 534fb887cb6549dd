"""What an objective asks to read: names, and the tokens at other places.

Shapes: N rows.
"""

import re
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.objectives.base import (
    EMBEDDING_MATRIX,
    NO_TOKEN,
    PREVIOUS,
    SECOND_READING,
    TOKENS_AT,
    Objective,
)

# An objective that looks further than this is most likely a mistake.
FURTHEST = 1024
OF_READINGS = (PREVIOUS, SECOND_READING)


def offsets(reads: Collection[str]) -> dict[str, int]:
    """Find the names of other tokens, and how many places away each is."""
    names = (name for name in reads if name.startswith(TOKENS_AT))
    return {name: int(name.removeprefix(TOKENS_AT)) for name in names}


def check_reads(objective: Objective) -> None:
    """Raise `PluginError` for a name that nobody supplies."""
    for name in objective.reads:
        match = re.fullmatch(rf"{TOKENS_AT}(0|[+-][1-9]\d*)", name)
        if match and abs(int(match.group(1))) <= FURTHEST:
            continue
        if name not in (*OF_READINGS, EMBEDDING_MATRIX):
            raise PluginError(
                f"reads {name!r:.80}: choose from previous, second_reading, embedding_matrix, "
                f"tokens_at:+1, tokens_at:-2, … (at most {FURTHEST} places away)"
            )


def tokens_at(
    lookup: Callable[[Tensor], Tensor], length: int, places_N: Tensor, offset: int, end_id: int
) -> Tensor:
    """Look up the tokens `offset` places after (or before) `places_N` [N], as int64.

    A place outside the text, or in another document than the token itself, has `NO_TOKEN`. The text
    has `length` tokens, those of a place by `lookup`; `end_id` closes a document.
    """
    target_N = places_N + offset
    same_N = (target_N >= 0) & (target_N < length)
    # On the way from a token to a later one nothing may be closed, nor on the way back.
    passed = range(offset) if offset > 0 else range(-1, offset - 1, -1)
    for step in passed:
        same_N &= lookup((places_N + step).clamp(0, length - 1)) != end_id
    found_N = lookup(target_N.clamp(0, length - 1)).long()
    return torch.where(same_N, found_N, NO_TOKEN)
