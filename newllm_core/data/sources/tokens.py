"""The `tokens` source: token ids made by hand, from `.json`, `.npy` or `.safetensors`.

A flat list or vector is one document, a list of lists or the rows of a matrix are documents.
Pickles are never read.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.data.sources.base import DataSource, Document
from newllm_core.data.sources.files import input_file
from newllm_core.errors import InputError, reason

if TYPE_CHECKING:
    import numpy as np

WHAT = "a .json, .npy or .safetensors file of token ids"
SHAPES = "a list of integers, or a list of such lists"


class Tokens(DataSource):
    """Documents that are token ids already; every tensor of a `.safetensors` file, by name."""

    def documents(self) -> Iterator[Document]:
        """Yield the documents of the file.

        Raises:
            InputError: no file, another format, or anything but non-negative integers.
        """
        path = input_file("tokens", self.input, WHAT)
        readers = {".json": _from_json, ".npy": _from_npy, ".safetensors": _from_safetensors}
        if path.suffix.lower() not in readers:
            raise InputError(f"{path} has the format {path.suffix or 'unknown'!r}: give {WHAT}")
        for ids in readers[path.suffix.lower()](path):
            if ids and min(ids) < 0:
                raise InputError(f"{path} holds the token id {min(ids)}: ids start at 0")
            yield Document(tokens=tuple(ids))


def _from_json(path: Path) -> Iterator[list[int]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {reason(error)}") from error
    if not isinstance(content, list):
        raise InputError(f"{path} holds {type(content).__name__}, expected {SHAPES}")
    nested = bool(content) and all(isinstance(part, list) for part in content)
    for ids in content if nested else [content]:
        for item in ids:
            # bool is a subclass of int, and true is no token id
            if type(item) is not int:
                raise InputError(f"{path} holds {str(item)[:40]!r}, expected {SHAPES}")
        yield ids


def _from_npy(path: Path) -> Iterator[list[int]]:
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a .npy file of integers: {reason(error)}") from error
    yield from _rows(array, str(path))


def _from_safetensors(path: Path) -> Iterator[list[int]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in sorted(file.keys()):
                kind = file.get_slice(name).get_dtype()
                if not kind.startswith(("I", "U")):
                    raise InputError(f"{path} tensor {name!r} has type {kind}, expected integers")
                yield from _rows(file.get_tensor(name), f"{path} tensor {name!r}")
    except InputError:
        raise
    except Exception as error:  # safetensors raises its own type, OSError, TypeError
        raise InputError(f"{path} is not a .safetensors file: {reason(error)}") from error


def _rows(array: "np.ndarray[Any, Any]", where: str) -> Iterator[list[int]]:
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise InputError(
            f"{where} is {array.dtype} of shape {list(array.shape)}, "
            "expected integers [tokens] or [documents, tokens]"
        )
    for row in array if array.ndim == 2 else [array]:
        yield row.tolist()
