"""Writes the files of one split, a document at a time, and their hashes on the way."""

import hashlib
import io
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newllm_core.data.dataset_info import DTYPES, SPLIT_FILES, FileInfo, SplitInfo
from newllm_core.data.losses import TokenLosses
from newllm_core.data.measures import TextCounts


def smallest_dtype(vocab_size: int) -> str:
    """Return the key of `DTYPES` that holds every id below `vocab_size`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True)
class WrittenSplit:
    """The counts of a split, and what is on disk of it."""

    info: SplitInfo
    files: dict[str, FileInfo]


class SplitWriter:
    """Token ids one after another, where documents start, and how much text they stand for.

    Args:
        folder: where the files go.
        split: its name.
        dtype: a key of `DTYPES`.
        min_space_share: see `TextCounts.words`.
        losses: counts what tokens do not give back.
    """

    def __init__(
        self, folder: Path, split: str, dtype: str, min_space_share: float, losses: TokenLosses
    ) -> None:
        self._paths = [folder / name.format(split) for name in SPLIT_FILES]
        self._dtype = DTYPES[dtype]
        self._tokens = self._paths[0].open("wb")
        self._hash = hashlib.sha256()
        self._starts = array("q", [0])
        self._bytes = array("q")
        self._min_space_share = min_space_share
        self._counts = TextCounts()
        self._losses = losses
        self._is_text = True
        self._tokens_written = self._bytes_finished = 0

    def add(
        self,
        ids: np.ndarray,
        *,
        texts: Iterable[str] | None,
        continues: bool = False,
    ) -> None:
        """Append a document, or a part of one that `continues` with the next call.

        Args:
            ids: of its tokens.
            texts: what they stand for; None if nobody knows.
            continues: whether the next call goes on with the document.
        """
        data = ids.astype(self._dtype).tobytes()
        self._tokens.write(data)
        self._hash.update(data)
        self._tokens_written += len(ids)
        self._is_text = self._is_text and texts is not None
        for text in texts or ():
            self._counts.add(text)
        if self._is_text:
            self._losses.add(texts or (), ids, continues=continues)
        if not continues:
            self._starts.append(self._tokens_written)
            self._bytes.append(self._counts.bytes - self._bytes_finished)
            self._bytes_finished = self._counts.bytes

    def close(self) -> None:
        """Close the token file; safe to call twice."""
        self._tokens.close()

    def finish(self) -> WrittenSplit:
        """Write the remaining files."""
        self.close()
        if not self._is_text:  # of a part of the text there are no figures per byte
            self._bytes = array("q", bytes(self._bytes.itemsize * len(self._bytes)))
        counts = self._counts
        tokens, documents, sizes = self._paths
        files = {tokens.name: FileInfo(tokens.stat().st_size, self._hash.hexdigest())}
        for path, numbers in ((documents, self._starts), (sizes, self._bytes)):
            files[path.name] = _write_array(path, numbers)
        info = SplitInfo(
            documents=len(self._bytes),
            tokens=self._starts[-1],
            bytes=counts.bytes if self._is_text else None,
            words=counts.words(self._min_space_share) if self._is_text else None,
            characters=counts.characters if self._is_text else None,
            unknown_tokens=self._losses.unknown_tokens if self._is_text else None,
            lost_bytes=self._losses.lost_bytes if self._is_text else None,
        )
        return WrittenSplit(info, files)


def _write_array(path: Path, numbers: "array[int]") -> FileInfo:
    """Write int64 numbers as `numpy.save` does, but with the reason where that fails."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (len(numbers),)}
    )
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (header.getvalue(), np.frombuffer(numbers, dtype=np.int64).astype("<i8").data):
            file.write(part)
            digest.update(part)
        return FileInfo(file.tell(), digest.hexdigest())


def write_text(path: Path, text: str) -> FileInfo:
    """Write a text file."""
    data = text.encode("utf-8")
    path.write_bytes(data)
    return FileInfo(len(data), hashlib.sha256(data).hexdigest())
