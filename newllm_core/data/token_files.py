"""Writes the files of one split, a document at a time, and their hashes on the way."""

import hashlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.data.dataset_info import DTYPES, SPLIT_FILES, FileInfo, SplitInfo

if TYPE_CHECKING:
    import numpy as np


def smallest_dtype(vocab_size: int) -> str:
    """The key of `DTYPES` that holds every id below `vocab_size`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True)
class WrittenSplit:
    """The counts of a split, and what is on disk of it."""

    info: SplitInfo
    files: dict[str, FileInfo]


class SplitWriter:
    """Token ids one after another, where documents start, and their bytes.

    Args:
        folder: where the files go.
        split: train or validation.
        dtype: a key of `DTYPES`.
    """

    def __init__(self, folder: Path, split: str, dtype: str) -> None:
        self._paths = [folder / name.format(split) for name in SPLIT_FILES]
        self._dtype = DTYPES[dtype]
        self._tokens = self._paths[0].open("wb")
        self._hash = hashlib.sha256()
        self._starts = array("q", [0])
        self._bytes = array("q")
        self._words = 0

    def add(self, ids: "np.ndarray[Any, Any]", *, num_bytes: int, num_words: int) -> None:
        """Append one document."""
        data = ids.astype(self._dtype).tobytes()
        self._tokens.write(data)
        self._hash.update(data)
        self._starts.append(self._starts[-1] + len(ids))
        self._bytes.append(num_bytes)
        self._words += num_words

    def close(self) -> None:
        """Close the token file; safe to call twice."""
        self._tokens.close()

    def finish(self) -> WrittenSplit:
        """Write the remaining files."""
        import numpy as np

        self.close()
        tokens, documents, sizes = self._paths
        files = {tokens.name: FileInfo(tokens.stat().st_size, self._hash.hexdigest())}
        for path, numbers in ((documents, self._starts), (sizes, self._bytes)):
            np.save(path, np.array(numbers, dtype="<i8"))
            files[path.name] = file_info(path)
        info = SplitInfo(
            documents=len(self._bytes),
            tokens=self._starts[-1],
            bytes=sum(self._bytes),
            words=self._words,
        )
        return WrittenSplit(info, files)


def file_info(path: Path) -> FileInfo:
    """Size and hash of a file that fits into memory."""
    data = path.read_bytes()
    return FileInfo(len(data), hashlib.sha256(data).hexdigest())
