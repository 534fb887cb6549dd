"""What is known of documents without reading them: an array of n `RECORD`s, 42 bytes each."""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DIGEST_BYTES = 16
TEXT, MESSAGES, TOKENS = range(3)
SPLITS = (None, "train", "validation", "test")
RECORD = [
    ("begin", "<i8"),  # where it lies in the spool, and the bytes that it takes there
    ("length", "<i8"),
    ("size", "<i8"),  # UTF-8 bytes of contents; of token ids, their number
    ("digest", f"S{DIGEST_BYTES}"),  # keyed hash of contents, equal for exact duplicates
    ("kind", "u1"),  # `TEXT`, `MESSAGES` or `TOKENS`
    ("split", "u1"),  # what the source said, as a place in `SPLITS`
]
PACKED = struct.Struct(f"<qqq{DIGEST_BYTES}sBB")


def of_split(documents: "np.ndarray", name: str) -> "np.ndarray":
    """Return which `documents` the source put into a split, bool [n]."""
    return documents["split"] == SPLITS.index(name)


def extent(documents: "np.ndarray") -> tuple[int, str]:
    """Return UTF-8 bytes of contents, or token ids, of all, and which of these it is."""
    ids = documents["kind"] == TOKENS
    unit = "bytes" if not ids.any() else "token ids" if ids.all() else "bytes and token ids"
    return int(documents["size"].sum()), unit
