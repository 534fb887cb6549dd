"""Turns the documents of every split into token files, and hashes these, through one function."""

import hashlib
import io
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import DTYPES, SPLIT_FILES, FileInfo, SplitInfo
from newllm_core.data.division import Division
from newllm_core.data.documents import extent
from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.pieces import in_batches
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.sources.base import Document
from newllm_core.data.spool import BATCH_BYTES, Cut, Spool
from newllm_core.data.text_counts import TextCounts
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


def _write_array(path: Path, numbers: "np.ndarray") -> FileInfo:
    """Write int64 numbers; by way of memory, because NumPy does not say why it cannot write."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, numbers.astype("<i8", copy=False))
    return write_file(path, buffer.getbuffer())


def write_file(path: Path, data: bytes | memoryview) -> FileInfo:
    """Write a file, and return what is known of it."""
    path.write_bytes(data)
    return FileInfo(len(data), hashlib.sha256(data).hexdigest())


@dataclass
class SplitEncoder:
    """Encodes documents of a spool into a folder; for `min_space_share` see `TextCounts.info`.

    Attributes:
        files: what is on disk, by its name.
        duplicates: validation documents left out because what the policy left of them is in train.
    """

    folder: Path
    spool: Spool
    tokenizer: TextTokenizer
    progress: Progress
    min_space_share: float
    files: dict[str, FileInfo] = field(default_factory=dict)
    duplicates: int = 0

    def write_whole(
        self, split: str, records: "np.ndarray", origin: str
    ) -> "tuple[SplitInfo, np.ndarray]":
        """Write all of a split, of which no more than a part of a document is in memory.

        Returns its counts, and for every token id whether it occurs, bool [vocab_size].
        `origin` is the documents' source, for messages.
        """
        encoded = self._encoded(
            records, split, origin, lambda chunks: self.tokenizer.pieces(chunks, PART_CHARACTERS)
        )
        return self._write(split, encoded)

    def write_validation(
        self, division: Division, policy: ValidationPolicy, origin: str
    ) -> SplitInfo:
        """Write what `policy` leaves of the validation split, a whole document at a time.

        Returns its counts. `InputError`, with the source `origin`, if nothing is left.
        """
        info, _ = self._write("validation", self._kept(division, policy, origin))
        if not info.documents:
            raise InputError(
                f"{origin}: nothing is left of {len(division.validation)} validation documents "
                "without token types that train lacks: give other ones with --val-input, or "
                "--val-token-policy keep"
            )
        return info

    def _kept(
        self, division: Division, policy: ValidationPolicy, origin: str
    ) -> "Iterator[tuple[Document, np.ndarray]]":
        import numpy as np

        in_train: np.ndarray | None = None  # ordered digests, if anybody asks
        begun = False  # whether a part of this document was kept, and it is to be ended
        for document, ids in self._encoded(division.validation, "validation", origin):
            kept = policy.apply(document, ids)
            if kept is document:
                begun = document.continues
                yield document, ids
            elif begun and not document.continues:
                begun = False
                yield Document(tokens=()), ids[:0]
            elif kept is not None:
                if in_train is None:
                    in_train = np.sort(division.train["digest"])
                wanted = np.array(self.spool.digest(kept), dtype=in_train.dtype)
                place = in_train.searchsorted(wanted)
                if (in_train[place : place + 1] == wanted).any():
                    self.duplicates += 1
                else:
                    yield kept, self.tokenizer.encode_documents([kept])[0]

    def _write(
        self, split: str, encoded: "Iterable[tuple[Document, np.ndarray]]"
    ) -> "tuple[SplitInfo, np.ndarray]":
        """Write ids one after another, where documents start, and how much text each has."""
        import numpy as np

        tokens, starts, sizes = (self.folder / name.format(split) for name in SPLIT_FILES)
        dtype = DTYPES[smallest_dtype(self.tokenizer.vocab_size)]
        token_ends, byte_ends = array("q", [0]), array("q", [0])
        counts = TextCounts(self.tokenizer)
        digest = hashlib.sha256()
        num_tokens, is_text = 0, True
        seen = np.zeros(self.tokenizer.vocab_size, dtype=bool)
        with tokens.open("wb") as file:
            for document, ids in encoded:
                data = ids.astype(dtype).tobytes()
                file.write(data)
                digest.update(data)
                num_tokens += len(ids)
                seen[ids] = True
                is_text = is_text and document.tokens is None
                if is_text:
                    counts.add(contents(document), ids, continues=document.continues)
                if not document.continues:
                    token_ends.append(num_tokens)
                    byte_ends.append(counts.bytes)
        self.files[tokens.name] = FileInfo(tokens.stat().st_size, digest.hexdigest())
        self.files[starts.name] = _write_array(starts, np.array(token_ends))
        # Of a part of the text there are no figures per byte.
        self.files[sizes.name] = _write_array(sizes, np.diff(byte_ends) * is_text)
        documents = len(token_ends) - 1
        if is_text:
            return counts.info(documents, self.min_space_share), seen
        return SplitInfo(documents, num_tokens, bytes=None, words=None), seen

    def _encoded(
        self, records: "np.ndarray", split: str, origin: str, cut: Cut | None = None
    ) -> "Iterator[tuple[Document, np.ndarray]]":
        size, unit = extent(records)
        self.progress.message(f"encoding {split}: {len(records):,} documents, {size:,} {unit}")
        documents = self.spool.documents(records, cut)
        batches = self._encoded_batches(in_batches(documents, _size, BATCH_BYTES))
        with self.progress.task(f"encoding {split}", size, unit) as task:
            try:
                for batch, encoded in batches:
                    task.advance(sum(map(_size, batch)))
                    yield from zip(batch, encoded, strict=True)
            except InputError as error:
                raise InputError(f"{origin}: {error}") from error

    def _encoded_batches(self, batches: Iterable[list[Document]]) -> "Iterator[Encoded]":
        """Yield batches and their ids, in order, a few of them encoded ahead in threads."""
        # Others may panic, and print to stderr, which is then turned away: nobody else may work.
        ahead = THREADS if self.tokenizer.is_cut_at_words else 0
        waiting: deque[tuple[list[Document], Future[list[np.ndarray]]]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batches:
                waiting.append((batch, pool.submit(self.tokenizer.encode_documents, batch)))
                if len(waiting) > ahead:
                    batch, future = waiting.popleft()
                    yield batch, future.result()
            for batch, future in waiting:
                yield batch, future.result()


def _size(document: Document) -> int:
    return len(document.tokens or ()) + sum(map(count_bytes, contents(document)))
