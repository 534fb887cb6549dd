"""Turns the documents of both splits into token files, through one function."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.data.division import Division
from newllm_core.data.measures import contents, count_bytes, count_words
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.sources.base import Document
from newllm_core.data.spool import Record, Spool
from newllm_core.data.token_files import SplitWriter, WrittenSplit, smallest_dtype
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class SplitEncoder:
    """Encodes documents of a spool into the files of a folder.

    Args:
        folder: where token files go.
        spool: holds the documents.
        tokenizer: encodes them.
        progress: who is told.
    """

    def __init__(
        self, folder: Path, spool: Spool, tokenizer: TextTokenizer, progress: Progress
    ) -> None:
        self._folder = folder
        self._spool = spool
        self._tokenizer = tokenizer
        self._progress = progress
        self._dtype = smallest_dtype(tokenizer.vocab_size)

    def write_train(self, records: Sequence[Record], origin: str) -> tuple[WrittenSplit, "Array"]:
        """Write the training split.

        Args:
            records: its documents.
            origin: their source, for messages.

        Returns:
            What was written, and for every token id whether it occurs, bool [vocab_size].
        """
        import numpy as np

        seen = np.zeros(self._tokenizer.vocab_size, dtype=bool)
        with closing(SplitWriter(self._folder, "train", self._dtype)) as writer:
            for document, ids in self._encoded(records, "train", origin):
                seen[ids] = True
                self._add(writer, document, ids)
            return writer.finish(), seen

    def write_validation(
        self, division: Division, policy: ValidationPolicy, origin: str
    ) -> tuple[WrittenSplit, int]:
        """Write what `policy` leaves of the validation split.

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
        train_digests = {record.digest for record in division.train}
        duplicates = 0
        with closing(SplitWriter(self._folder, "validation", self._dtype)) as writer:
            for document, ids in self._encoded(division.validation, "validation", origin):
                kept = policy.apply(document, ids)
                if kept is None:
                    continue
                if kept is not document:
                    if self._spool.digest(kept) in train_digests:
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

    def _encoded(
        self, records: Sequence[Record], split: str, origin: str
    ) -> Iterator[tuple[Document, "Array"]]:
        size = sum(record.size for record in records)
        self._progress.message(f"encoding {split}: {len(records):,} documents, {size:,} bytes")
        with self._progress.task(f"encoding {split}", size, "bytes") as task:
            for batch in self._spool.batches(records):
                try:
                    encoded = self._tokenizer.encode_documents(batch, task.advance)
                except InputError as error:
                    raise InputError(f"{origin}: {error}") from error
                yield from zip(batch, encoded, strict=True)

    def _add(self, writer: SplitWriter, document: Document, ids: "Array") -> None:
        texts = contents(document)
        if document.tokens is not None:
            texts = (self._tokenizer.decode(document.tokens),)
        writer.add(
            ids,
            num_bytes=sum(map(count_bytes, texts)),
            num_words=sum(map(count_words, texts)),
        )
