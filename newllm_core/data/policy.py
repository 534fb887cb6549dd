"""The validation policy: every token type of validation occurs in train.

A model cannot have learnt a token it never saw, so lines with one are dropped (or counted only).
"""

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from newllm_core.data.measures import contents, count_bytes, count_lines
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import numpy as np


@dataclass
class PolicyReport:
    """What the policy, drop or keep, found in the validation documents and did about it.

    Attributes:
        unseen_types: token types of validation that train lacks, before anything was dropped.
        lines: of all validation documents, before; one for every `PART_TOKENS` of token ids.
        bytes: of all validation documents, before; token ids have none.
        dropped_documents: documents of which nothing was left.
    """

    policy: str
    unseen_types: int = 0
    lines: int = 0
    dropped_lines: int = 0
    bytes: int = 0
    dropped_bytes: int = 0
    dropped_documents: int = 0

    @property
    def dropped_line_share(self) -> float:
        """Return the share of lines dropped."""
        return self.dropped_lines / max(self.lines, 1)

    @property
    def dropped_byte_share(self) -> float:
        """Return the share of bytes dropped."""
        return self.dropped_bytes / max(self.bytes, 1)


class ValidationPolicy:
    """Applies the policy to validation documents one by one; its `report` is of all so far.

    `policy` is drop or keep; `seen` says of every token id whether train has it, bool [vocab_size].
    """

    def __init__(self, policy: str, tokenizer: TextTokenizer, seen: "np.ndarray") -> None:
        self.report = PolicyReport(policy)
        self._tokenizer = tokenizer
        self._seen = seen
        self._unseen: set[int] = set()

    def apply(self, document: Document, ids: "np.ndarray") -> Document | None:
        """Return what may stay of `document`, whose encoding is `ids`; None if nothing may."""
        lines, size = self._measure(document)
        report = self.report
        report.lines += lines
        report.bytes += size
        unseen = ids[~self._seen[ids]]
        self._unseen.update(unseen.tolist())
        report.unseen_types = len(self._unseen)
        if report.policy == "keep" or not len(unseen):
            return document
        kept = self._kept(document)
        kept_lines, kept_size = (0, 0) if kept is None else self._measure(kept)
        report.dropped_lines += lines - kept_lines
        report.dropped_bytes += size - kept_size
        report.dropped_documents += kept is None
        return kept

    def _measure(self, document: Document) -> tuple[int, int]:
        if document.tokens is not None:
            return 1, 0
        texts = contents(document)
        return sum(map(count_lines, texts)), sum(map(count_bytes, texts))

    def _kept(self, document: Document) -> Document | None:
        if document.tokens is not None or not self._seen[self._tokenizer.end_id]:
            return None  # ids made by hand have no lines
        if document.messages is None:
            text = self._clean(document.text or "")
            return Document(text=text) if text else None
        messages = []
        for message in document.messages:
            if not self._seen[self._tokenizer.role_ids[message.role]]:
                continue
            content = self._clean(message.content)
            if content or not message.content:
                messages.append(Message(message.role, content))
        return Document(messages=tuple(messages)) if any(m.content for m in messages) else None

    def _clean(self, text: str) -> str:
        """Return `text` without the lines that hold an unseen token, in whole or in part.

        What is left is encoded anew, because tokens may form across the gap, until all is seen.
        """
        while (kept := without_lines(text, self._unseen_spans(text))) != text:
            text = kept
        return text

    def _unseen_spans(self, text: str) -> Iterator[tuple[int, int]]:
        for ids, offsets in self._tokenizer.encodings(text):
            for place in (~self._seen[ids]).nonzero()[0].tolist():
                yield offsets[place]


def without_lines(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return `text` without the lines that share a character with one of the `[start, end)` spans.

    An empty span counts as the character at its start.
    """
    lines = list(io.StringIO(text))
    ends = list(accumulate(map(len, lines)))
    dropped: set[int] = set()
    for start, end in spans:
        first = bisect_right(ends, min(start, len(text) - 1))
        last = bisect_right(ends, min(max(start, end - 1), len(text) - 1))
        dropped.update(range(first, last + 1))
    return "".join(line for number, line in enumerate(lines) if number not in dropped)
