"""Memory-mapped files that are read from one end to the other."""

import mmap

import numpy as np


def release_pages(array: np.ndarray) -> None:
    """Give back the memory of what was read of a memory-mapped array, or of a slice of one.

    Pages of a mapped file count as this process's memory for as long as nobody else wants it, so
    it would seem to grow with the file. They are read again when they are needed again.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
