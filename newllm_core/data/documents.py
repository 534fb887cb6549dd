"""What is known of documents without reading them, in columns: 33 bytes for each."""

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
        marks: what it is and what the source said of its split, see `mark`, uint8 [n].
    """

    offsets: "np.ndarray"
    sizes: "np.ndarray"
    digests: "np.ndarray"
    marks: "np.ndarray"

    def __len__(self) -> int:
        return len(self.sizes)

    def of_split(self, name: str) -> "np.ndarray":
        """Return which documents the source put into a split, bool [n]."""
        return self.marks % len(SPLITS) == SPLITS.index(name)

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
        ids = self.documents.marks[self.indices] // len(SPLITS) == TOKENS
        return "bytes" if not ids.any() else "token ids" if ids.all() else "bytes and token ids"

    @property
    def digests(self) -> "np.ndarray":
        """Return those of the documents, S16 [m]."""
        return self.documents.digests[self.indices]


def mark(kind: int, split: str | None) -> int:
    """Return kind and split of a document as one small number; `kind_of` and `of_split` undo it."""
    return kind * len(SPLITS) + SPLITS.index(split)


def kind_of(marked: int) -> int:
    """Return `TEXT`, `MESSAGES` or `TOKENS`."""
    return marked // len(SPLITS)
