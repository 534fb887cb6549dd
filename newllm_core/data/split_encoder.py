"""Turns the documents of every split into token files, through one function.

Hashes are made on the way.
"""

import hashlib
import io
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import DTYPES, SPLIT_FILES, FileInfo, SplitInfo
from newllm_core.data.division import Division
from newllm_core.data.documents import Selection
from newllm_core.data.losses import TokenLosses
from newllm_core.data.measures import TextCounts, contents, count_bytes
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.sources.base import Document
from newllm_core.data.spool import Cut, Spool, in_one_part
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    Encoded = tuple[list[Document], list[np.ndarray]]

PART_CHARACTERS = 1 << 20
THREADS = 2


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


class SplitEncoder:
    """Encodes documents of a spool into `files` of a folder, which have their names as keys."""

    def __init__(
        self,
        folder: Path,
        spool: Spool,
        tokenizer: TextTokenizer,
        progress: Progress,
        min_space_share: float,
    ) -> None:
        self._folder = folder
        self._spool = spool
        self._tokenizer = tokenizer
        self._progress = progress
        self._min_space_share = min_space_share
        self.files: dict[str, FileInfo] = {}

    def write_whole(
        self, split: str, selection: Selection, origin: str
    ) -> "tuple[SplitInfo, np.ndarray]":
        """Write all of a split, of which no more than a part of a document is in memory.

        Returns its counts, and for every token id whether it occurs, bool [vocab_size].
        `origin` is the documents' source, for messages.
        """
        import numpy as np

        seen = np.zeros(self._tokenizer.vocab_size, dtype=bool)
        with closing(self._writer(split)) as writer:
            for document, ids in self._encoded(selection, split, origin, self._parts):
                seen[ids] = True
                writer.add(document, ids)
            return self._finish(writer), seen

    def write_validation(
        self, division: Division, policy: ValidationPolicy, origin: str
    ) -> tuple[SplitInfo, int]:
        """Write what `policy` leaves of the validation split, a whole document at a time.

        Returns its counts, and how many documents were left out because what the policy left of
        them is a document of train. `InputError`, with the source `origin`, if nothing is left.
        """
        import numpy as np

        duplicates = 0
        in_train: np.ndarray | None = None  # ordered digests, if anybody asks
        with closing(self._writer("validation")) as writer:
            for document, ids in self._encoded(division.validation, "validation", origin):
                kept = policy.apply(document, ids)
                if kept is None:
                    continue
                if kept is not document:
                    if in_train is None:
                        in_train = np.sort(division.train.digests)
                    wanted = np.array(self._spool.digest(kept), dtype=in_train.dtype)
                    place = in_train.searchsorted(wanted)
                    if (in_train[place : place + 1] == wanted).any():
                        duplicates += 1
                        continue
                    ids = self._tokenizer.encode_documents([kept])[0]
                writer.add(kept, ids)
            info = self._finish(writer)
        if not info.documents:
            raise InputError(
                f"{origin}: nothing is left of {len(division.validation)} validation documents "
                "without token types that train lacks: give other ones with --val-input, or "
                "--val-token-policy keep"
            )
        return info, duplicates

    def _writer(self, split: str) -> SplitWriter:
        return SplitWriter(self._folder, split, self._tokenizer, self._min_space_share)

    def _finish(self, writer: SplitWriter) -> SplitInfo:
        info, files = writer.finish()
        self.files |= files
        return info

    def _parts(self, chunks: Iterable[str]) -> Iterator[str]:
        return self._tokenizer.pieces(chunks, PART_CHARACTERS)

    def _encoded(
        self, selection: Selection, split: str, origin: str, cut: Cut = in_one_part
    ) -> "Iterator[tuple[Document, np.ndarray]]":
        size, unit = selection.size, selection.unit
        self._progress.message(f"encoding {split}: {len(selection):,} documents, {size:,} {unit}")
        batches = self._encoded_batches(self._spool.batches(selection, cut))
        with self._progress.task(f"encoding {split}", size, unit) as task:
            try:
                for batch, encoded in batches:
                    task.advance(sum(map(_size, batch)))
                    yield from zip(batch, encoded, strict=True)
            except InputError as error:
                raise InputError(f"{origin}: {error}") from error

    def _encoded_batches(self, batches: Iterable[list[Document]]) -> "Iterator[Encoded]":
        """Yield batches and their ids, in order, a few of them encoded ahead in threads."""
        encode = self._tokenizer.encode_documents
        if not self._tokenizer.is_cut_at_words:
            # It may panic, and print to stderr, which is then turned away: nobody else may be at
            # work.
            yield from ((batch, encode(batch)) for batch in batches)
            return
        waiting: deque[tuple[list[Document], Future[list[np.ndarray]]]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batches:
                waiting.append((batch, pool.submit(encode, batch)))
                if len(waiting) > THREADS:
                    batch, future = waiting.popleft()
                    yield batch, future.result()
            for batch, future in waiting:
                yield batch, future.result()


def _size(document: Document) -> int:
    return len(document.tokens or ()) + sum(map(count_bytes, contents(document)))
