"""What a model makes of a text of any length: read, encoded and scored in constant memory.

The figures are those of a prepared data set whose only validation document is the text.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from newllm_core.config import DataConfig
from newllm_core.data.pieces import in_batches
from newllm_core.data.sources.decoding import UTF8, read_chunks, text_bytes, unicode_text
from newllm_core.data.sources.opening import path_name
from newllm_core.data.text_counts import TextCounts
from newllm_core.data.tokenizer import PIECE_CHARACTERS, TextTokenizer
from newllm_core.errors import InputError
from newllm_core.evaluation.splits import UNITS, score, without_line_ends
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Progress, Silent, Task
from newllm_core.trajectory.text import contexts_of_segments

# So many tokens or somewhat more are scored at a time: streams in lock-step must be long to be
# worth their warm-up.
SEGMENT_TOKENS = 1 << 19


def evaluate_text(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    text: str | Path,
    *,
    head_weights: Sequence[float],
    encoding: str = UTF8,
    progress: Progress | None = None,
    min_space_share: float = DataConfig.min_space_share,
) -> dict[str, Any]:
    """Predict every token of a text, and the end token behind it, from all before it.

    A path is that of a file of that `encoding`, which may be compressed, or `STDIN`. Bytes and
    words are those of the text itself, whatever the tokenizer makes of them; a byte order mark is
    no text. `head_weights` are as for `evaluate`, `min_space_share` as for `TextCounts.info`.

    Returns:
        The mapping of `evaluation.evaluate`, with what `without_line_ends` adds.

    Raises:
        InputError: the text is empty, missing, or not Unicode text of that encoding.
    """
    progress = progress or Silent()
    chunks: Iterable[str]
    if isinstance(text, str):
        name, size = "the text", None
        chunks = (unicode_text(text, name),)
    else:
        name, size = path_name(text), text_bytes(text, encoding)
        if size is not None:
            progress.message(f"evaluating {text}: {size:,} bytes")
        chunks = read_chunks(text, encoding)
    with progress.task("evaluating", size, "bytes") as task:
        read = _Text(tokenizer, task)
        segments = map(np.concatenate, in_batches(read.encoded(chunks, name), len, SEGMENT_TOKENS))
        readings = contexts_of_segments(model, segments, end_id=tokenizer.end_id)
        scores = score(model, readings, read)
    info = read.counts.info(1, min_space_share)
    counts = {f"num_{unit}": getattr(info, unit) for unit in UNITS}
    counts |= {"unknown_share": info.unknown_share, "lost_share": info.lost_share}
    return without_line_ends(scores.figures(head_weights, counts), read.counts.line_ends)


class _Text(Task):
    """Counts a text while it is encoded, and tells a task of bytes about its tokens."""

    def __init__(self, tokenizer: TextTokenizer, task: Task) -> None:
        self._tokenizer = tokenizer
        self._task = task
        self._tokens = self._bytes = 0
        self.counts = TextCounts(tokenizer)

    def encoded(self, chunks: Iterable[str], name: str) -> Iterator[np.ndarray]:
        for piece in self._tokenizer.pieces(chunks, PIECE_CHARACTERS):
            ids = np.array(self._tokenizer.encode(piece), np.uint32)
            # Pieces begin with white space, so none ends within a word.
            self.counts.add((piece,), ids, continues=True)
            yield ids
        if not self.counts.bytes:
            raise InputError(f"{name} is empty: there is nothing to evaluate")
        end = np.array([self._tokenizer.end_id], np.uint32)
        self.counts.add((), end)
        yield end

    def advance(self, amount: int, note: str = "") -> None:
        self._tokens += amount
        reached = self.counts.bytes * self._tokens // max(self.counts.tokens, 1)
        self._task.advance(reached - self._bytes, note)
        self._bytes = reached
