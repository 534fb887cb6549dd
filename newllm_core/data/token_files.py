"""Writes the files of one split, a document at a time, and their hashes on the way."""

import hashlib
import io
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import DTYPES, SPLIT_FILES, FileInfo, SplitInfo
from newllm_core.data.losses import TokenLosses
from newllm_core.data.measures import TextCounts, contents
from newllm_core.data.sources.base import Document
from newllm_core.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import numpy as np


def smallest_dtype(vocab_size: int) -> str:
    """Return the key of `DTYPES` that holds every id below `vocab_size`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class SplitWriter:
    """Writes token ids one after another, where documents start, and how much text they stand for.

    `split` is the name of what goes to `folder`; for `min_space_share` see `TextCounts.words`.
    """

    def __init__(
        self, folder: Path, split: str, tokenizer: TextTokenizer, min_space_share: float
    ) -> None:
        self._paths = [folder / name.format(split) for name in SPLIT_FILES]
        self._dtype = DTYPES[smallest_dtype(tokenizer.vocab_size)]
        self._tokens = self._paths[0].open("wb")
        self._hash = hashlib.sha256()
        self._starts = array("q", [0])
        self._bytes = array("q")
        self._min_space_share = min_space_share
        self._counts = TextCounts()
        self._losses = TokenLosses(tokenizer)
        self._is_text = True
        self._tokens_written = self._bytes_finished = 0

    def add(self, document: Document, ids: "np.ndarray") -> None:
        """Append a document, or a part of one that continues with the next call, and its `ids`."""
        data = ids.astype(self._dtype).tobytes()
        self._tokens.write(data)
        self._hash.update(data)
        self._tokens_written += len(ids)
        self._is_text = self._is_text and document.tokens is None
        texts = contents(document)
        for text in texts:
            self._counts.add(text)
        if self._is_text:
            self._losses.add(texts, ids, continues=document.continues)
        if not document.continues:
            self._starts.append(self._tokens_written)
            self._bytes.append(self._counts.bytes - self._bytes_finished)
            self._bytes_finished = self._counts.bytes

    def close(self) -> None:
        """Close the token file; safe to call twice."""
        self._tokens.close()

    def finish(self) -> tuple[SplitInfo, dict[str, FileInfo]]:
        """Write the remaining files; return the counts, and what is on disk by its name."""
        import numpy as np

        self.close()
        tokens, starts, sizes = self._paths
        files = {
            tokens.name: FileInfo(tokens.stat().st_size, self._hash.hexdigest()),
            starts.name: _write_array(starts, np.array(self._starts)),
            # Of a part of the text there are no figures per byte.
            sizes.name: _write_array(sizes, np.array(self._bytes) * self._is_text),
        }
        documents, num_tokens = len(self._bytes), self._starts[-1]
        if not self._is_text:
            return SplitInfo(documents, num_tokens, bytes=None, words=None), files
        info = SplitInfo(
            documents=documents,
            tokens=num_tokens,
            bytes=self._counts.bytes,
            words=self._counts.words(self._min_space_share),
            characters=self._counts.characters,
            unknown_tokens=self._losses.unknown_tokens,
            lost_bytes=self._losses.lost_bytes,
        )
        return info, files


def _write_array(path: Path, numbers: "np.ndarray") -> FileInfo:
    """Write int64 numbers; by way of memory, because NumPy does not say why it cannot write."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, numbers.astype("<i8", copy=False))
    return _write(path, buffer.getbuffer())


def write_text(path: Path, text: str) -> FileInfo:
    """Write a text file."""
    return _write(path, text.encode("utf-8"))


def _write(path: Path, data: bytes | memoryview) -> FileInfo:
    path.write_bytes(data)
    return FileInfo(len(data), hashlib.sha256(data).hexdigest())
