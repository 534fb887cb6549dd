"""What is known of documents without reading them, in columns: 34 bytes for each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DIGEST_BYTES = 16
TEXT, MESSAGES, TOKENS = range(3)
SPLITS = (None, "train", "validation", "test")


@dataclass(frozen=True)
class Documents:
    """The n documents of a source, in its order, as they lie in the spool one after another.

    Attributes:
        offsets: first byte of each in the spool, and the end of the last, int64 [n+1].
        sizes: UTF-8 bytes of contents; of token ids, their number, int64 [n].
        digests: keyed hash of contents, equal for exact duplicates, S16 [n].
        kinds: `TEXT`, `MESSAGES` or `TOKENS`, uint8 [n].
        splits: what the source said, as a place in `SPLITS`, uint8 [n].
    """

    offsets: "np.ndarray"
    sizes: "np.ndarray"
    digests: "np.ndarray"
    kinds: "np.ndarray"
    splits: "np.ndarray"

    def __len__(self) -> int:
        return len(self.sizes)

    def of_split(self, name: str) -> "np.ndarray":
        """Return which documents the source put into a split, bool [n]."""
        return self.splits == SPLITS.index(name)

    def select(self, chosen: "np.ndarray") -> "Selection":
        """Return the documents at which `chosen`, bool [n], is true."""
        return Selection(self, chosen.nonzero()[0])


@dataclass(frozen=True)
class Selection:
    """Some of the documents of a source, ascending; `indices` are their places, int64 [m]."""

    documents: Documents
    indices: "np.ndarray"

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def size(self) -> int:
        """Return UTF-8 bytes of contents, or token ids, of all."""
        return int(self.documents.sizes[self.indices].sum())

    @property
    def unit(self) -> str:
        """Say what `size` counts."""
        ids = self.documents.kinds[self.indices] == TOKENS
        return "bytes" if not ids.any() else "token ids" if ids.all() else "bytes and token ids"

    @property
    def digests(self) -> "np.ndarray":
        """Return those of the documents, S16 [m]."""
        return self.documents.digests[self.indices]
