"""Arrays mapped into memory: `.npy` files that others made, and what is read of any of them."""

import mmap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.errors import InputError, reason
from newllm_core.files.from_strangers import regular_file

if TYPE_CHECKING:
    import numpy as np

KIND = ".npy file"


def open_array(path: Path, what: str = KIND) -> "np.ndarray":
    """Return the array of a file, read-only and read when it is used; never a pickle.

    `InputError` if it is damaged, or holds anything but one array of plain numbers.
    """
    import numpy as np

    regular_file(path, what)
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":  # numpy would also open archives of several arrays
                raise ValueError("it does not start as one")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns about headers that it has to guess at
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, with all that can go wrong
        raise InputError(f"{path} is not a readable {what}: {reason(error)}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {array.dtype}, expected real numbers")
    return array


def release_pages(array: "np.ndarray") -> None:
    """Give back the memory of what was read of a memory-mapped array, or of a slice of one.

    Pages of a mapped file count as this process's memory for as long as nobody else wants it, so
    it would seem to grow with the file. They are read again when they are needed again.
    """
    import numpy as np

    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
