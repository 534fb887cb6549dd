"""What there is of a text, and what its tokens do not give back."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import SplitInfo
from newllm_core.data.measures import count_bytes, count_words
from newllm_core.data.text_stream import MOST_BEFORE
from newllm_core.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import numpy as np


class TextCounts:
    """Counts texts that come part by part, and their tokens; no part ends within a word."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._missing: Counter[str] = Counter()
        self._words = self._spaces = self._characters = self._unknown_tokens = 0
        self.tokens = self.bytes = self.line_ends = 0

    def add(self, texts: Sequence[str], ids: "np.ndarray", *, continues: bool = False) -> None:
        """Count texts that `ids` [T] are of; one that `continues` goes on with the next call."""
        self._words += sum(map(count_words, texts))
        text = "".join(texts)
        self._characters += len(text)
        self._spaces += text.count(" ")
        self.tokens += len(ids)
        self.bytes += count_bytes(text)
        self.line_ends += text.count("\n")
        if self._tokenizer.is_lossless:
            return
        if self._tokenizer.unknown_id is not None:
            self._unknown_tokens += int((ids == self._tokenizer.unknown_id).sum())
        decode, spelling = self._tokenizer.decode, self._tokenizer.spelling
        read = [*self._before, *(token for token in ids.tolist() if spelling(token) is not None)]
        found = decode(read)[len(decode(self._before)) :]
        if found != text:
            self._missing.update(text)
            self._missing.subtract(found)
        self._before = read[-MOST_BEFORE:] if continues else []

    def info(self, documents: int, min_space_share: float) -> SplitInfo:
        """Return the counts of all texts, which are so many `documents`.

        Words are None where spaces are too few to separate them: Chinese and Japanese have next to
        none, Thai has them between clauses. One is granted, so that a single word is one. Lost are
        characters that the text of the tokens has less often; places are not compared, so that
        there may be more.
        """
        missing = self._missing.items()
        separated = self._spaces + 1 >= min_space_share * self._characters
        return SplitInfo(
            documents=documents,
            tokens=self.tokens,
            bytes=self.bytes,
            words=self._words if separated else None,
            characters=self._characters,
            unknown_tokens=self._unknown_tokens,
            lost_bytes=sum(count_bytes(letter) * n for letter, n in missing if n > 0),
        )


def lost_text_in_words(unknown_share: float | None, lost_share: float | None) -> str:
    """Return what a reader must know of a text that tokens do not give back."""
    return (
        f"{unknown_share or 0:.2%} of tokens are unknown, and {lost_share or 0:.2%} of bytes "
        "cannot be read from the tokens"
    )
