"""Turns the documents of every split into token files, through one function."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from newllm_core.data.ahead import map_ahead, map_here
from newllm_core.data.division import Division
from newllm_core.data.documents import Selection
from newllm_core.data.losses import TokenLosses
from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.pieces import pieces
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.sources.base import Document
from newllm_core.data.spool import Cut, Spool, in_one_part
from newllm_core.data.token_files import SplitWriter, WrittenSplit, smallest_dtype
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.runtime.progress import Progress

PART_CHARACTERS = 1 << 20


class SplitEncoder:
    """Encodes documents of a spool into the files of a folder.

    Args:
        folder: where token files go.
        spool: holds the documents.
        tokenizer: encodes them.
        progress: who is told.
        min_space_share: see `TextCounts.words`.
    """

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
        self._dtype = smallest_dtype(tokenizer.vocab_size)
        self._min_space_share = min_space_share

    def write_whole(
        self, split: str, selection: Selection, origin: str
    ) -> tuple[WrittenSplit, np.ndarray]:
        """Write all of a split, of which no more than a part of a document is in memory.

        Args:
            split: its name.
            selection: its documents.
            origin: their source, for messages.

        Returns:
            What was written, and for every token id whether it occurs, bool [vocab_size].
        """
        seen = np.zeros(self._tokenizer.vocab_size, dtype=bool)
        with closing(self._writer(split)) as writer:
            for document, ids in self._encoded(selection, split, origin, self._parts):
                seen[ids] = True
                self._add(writer, document, ids)
            return writer.finish(), seen

    def write_validation(
        self, division: Division, policy: ValidationPolicy, origin: str
    ) -> tuple[WrittenSplit, int]:
        """Write what `policy` leaves of the validation split, a whole document at a time.

        Args:
            division: of the documents.
            policy: says what may stay.
            origin: the source of validation documents, for messages.

        Returns:
            What was written, and how many documents were left out because what the policy left
            of them is a document of train.

        Raises:
            InputError: nothing is left.
        """
        in_train = _Membership(division.train)
        duplicates = 0
        with closing(self._writer("validation")) as writer:
            for document, ids in self._encoded(
                division.validation, "validation", origin, in_one_part
            ):
                kept = policy.apply(document, ids)
                if kept is None:
                    continue
                if kept is not document:
                    if self._spool.digest(kept) in in_train:
                        duplicates += 1
                        continue
                    ids = self._tokenizer.encode_documents([kept])[0]
                self._add(writer, kept, ids)
            written = writer.finish()
        if not written.info.documents:
            raise InputError(
                f"{origin}: nothing is left of {len(division.validation)} validation documents "
                "without token types that train lacks: give other ones with --val-input, or "
                "--val-token-policy keep"
            )
        return written, duplicates

    def _writer(self, split: str) -> SplitWriter:
        losses = TokenLosses(self._tokenizer)
        return SplitWriter(self._folder, split, self._dtype, self._min_space_share, losses)

    def _parts(self, chunks: Iterable[str]) -> Iterator[str]:
        return pieces(self._tokenizer, chunks, PART_CHARACTERS)

    def _encoded(
        self, selection: Selection, split: str, origin: str, cut: Cut
    ) -> Iterator[tuple[Document, np.ndarray]]:
        size, unit = selection.size, selection.unit
        self._progress.message(f"encoding {split}: {len(selection):,} documents, {size:,} {unit}")
        batches = self._spool.batches(selection, cut)
        # A tokenizer that may panic prints to stderr, which is then turned away: nobody else may
        # be at work.
        encode_all = map_ahead if self._tokenizer.is_cut_at_words else map_here
        with self._progress.task(f"encoding {split}", size, unit) as task:
            try:
                for batch, encoded in encode_all(self._tokenizer.encode_documents, batches):
                    task.advance(sum(map(_size, batch)))
                    yield from zip(batch, encoded, strict=True)
            except InputError as error:
                raise InputError(f"{origin}: {error}") from error

    def _add(self, writer: SplitWriter, document: Document, ids: np.ndarray) -> None:
        texts = contents(document) if document.tokens is None else None
        writer.add(ids, texts=texts, continues=document.continues)


class _Membership:
    """Whether a document is one of a selection; costs memory only if somebody asks."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._ordered: np.ndarray | None = None

    def __contains__(self, digest: bytes) -> bool:
        if self._ordered is None:
            self._ordered = np.sort(self._selection.digests)
        wanted = np.array(digest, dtype=self._ordered.dtype)
        place = int(np.searchsorted(self._ordered, wanted))
        return place < len(self._ordered) and bool(self._ordered[place] == wanted)


def _size(document: Document) -> int:
    return len(document.tokens or ()) + sum(map(count_bytes, contents(document)))
