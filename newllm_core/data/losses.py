"""What tokens do not give back of the text they stand for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import SplitInfo
from newllm_core.data.measures import count_bytes
from newllm_core.data.text_stream import MOST_BEFORE
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy as np


class TokenLosses:
    """Counts the tokens, unknown tokens and UTF-8 bytes of texts that come part by part."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._missing: Counter[str] = Counter()
        self.tokens = self.unknown_tokens = self.bytes = 0

    def add(self, texts: Iterable[str], ids: "np.ndarray", *, continues: bool = False) -> None:
        """Count texts that `ids` [T] are of; one that `continues` goes on with the next call."""
        text = "".join(texts)
        self.tokens += len(ids)
        self.bytes += count_bytes(text)
        if self._tokenizer.is_lossless:
            return
        if self._tokenizer.unknown_id is not None:
            self.unknown_tokens += int((ids == self._tokenizer.unknown_id).sum())
        decode, spelling = self._tokenizer.decode, self._tokenizer.spelling
        read = [*self._before, *(token for token in ids.tolist() if spelling(token) is not None)]
        found = decode(read)[len(decode(self._before)) :]
        if found != text:
            self._missing.update(text)
            self._missing.subtract(found)
        self._before = read[-MOST_BEFORE:] if continues else []

    @property
    def lost_bytes(self) -> int:
        """Return bytes of characters that the text of the tokens has less often.

        Places are not compared, so that there may be more.
        """
        missing = self._missing.items()
        return sum(count_bytes(letter) * count for letter, count in missing if count > 0)

    @property
    def unknown_share(self) -> float:
        """Return the share of unknown tokens."""
        return self.unknown_tokens / max(self.tokens, 1)

    @property
    def lost_share(self) -> float:
        """Return the share of lost bytes."""
        return self.lost_bytes / max(self.bytes, 1)


def warn_of_losses(splits: Mapping[str, SplitInfo], progress: Progress) -> None:
    """Say of which splits tokens do not give the text back."""
    for name, split in splits.items():
        if split.lost_share or split.unknown_share:
            progress.warning(
                f"{name}: {losses_in_words(split.unknown_share, split.lost_share)}; a tokenizer "
                "of bytes (--tokenizer bpe) loses none"
            )


def losses_in_words(unknown_share: float | None, lost_share: float | None) -> str:
    """Return what a reader must know of a text that tokens do not give back."""
    return (
        f"{unknown_share or 0:.2%} of tokens are unknown, and {lost_share or 0:.2%} of bytes "
        "cannot be read from the tokens"
    )
