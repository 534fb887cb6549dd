"""Turns the documents of every split into token files, through one function."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import FileInfo, SplitInfo
from newllm_core.data.division import Division
from newllm_core.data.documents import Selection
from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.sources.base import Document
from newllm_core.data.spool import Cut, Spool, in_one_part
from newllm_core.data.token_files import SplitWriter
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    Encoded = tuple[list[Document], list[np.ndarray]]

PART_CHARACTERS = 1 << 20
THREADS = 2


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

        Returns its counts, and for every token id whether it occurs, bool [vocab_size]. `origin` is
        their source, for messages.
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

        Returns its counts, and how many documents were left out because what the policy left of them
        is a document of train. `origin` is the documents' source, for messages.

        Raises:
            InputError: nothing is left.
        """
        import numpy as np

        duplicates = 0
        in_train: np.ndarray | None = None  # ordered digests, if anybody asks
        with closing(self._writer("validation")) as writer:
            for document, ids in self._encoded(
                division.validation, "validation", origin, in_one_part
            ):
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
        self, selection: Selection, split: str, origin: str, cut: Cut
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
