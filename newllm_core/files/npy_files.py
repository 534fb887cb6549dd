"""`.npy` files that others made, mapped into memory."""

import warnings
from pathlib import Path

import numpy as np

from newllm_core.errors import InputError, reason
from newllm_core.files.from_strangers import regular_file

KIND = ".npy file"


def open_array(path: Path, what: str = KIND) -> np.ndarray:
    """Return the array of a file, read-only and read when it is used; never a pickle.

    Raises:
        InputError: it is missing or damaged, or holds anything but one array of plain numbers.
    """
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
