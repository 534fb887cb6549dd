"""The `tokens` source: token ids made by hand or by other tools.

From `.json`, `.npy` or `.safetensors` a flat list or vector is one document, a list of lists or the
rows of a matrix are documents. A `.bin` of nanoGPT (uint16) or llm.c (with a header) is one
document; those of datatrove's `.ds` end where its `.ds.index` says, and a folder has the files
below it that end in `.ds`, by name. Pickles are never read.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.config.values import shown
from newllm_core.data.sources.base import DataSource, Document
from newllm_core.data.sources.files import files_below, input_file, input_path
from newllm_core.data.sources.json_rows import kind_of
from newllm_core.errors import InputError, reason
from newllm_core.files.from_strangers import read_text, regular_file
from newllm_core.files.npy_files import open_array, release_pages
from newllm_core.files.tensor_files import open_tensors

if TYPE_CHECKING:
    import numpy as np

WHAT = "a .json, .npy, .safetensors, .bin or .ds file of token ids, or a folder of .ds files"
SHAPES = "a list of integers of 32 bits, or a list of such lists"
MOST_BITS = 32
PART_TOKENS = 1 << 17
# What a file of llm.c begins with: how wide its tokens are, and how long its header is.
LLM_C = {20240520: ("<u2", 1024), 20240801: ("<u4", 1024)}

Ids = tuple[list[int], bool]  # and whether the document goes on


class Tokens(DataSource):
    """Documents that are token ids already; every tensor of a `.safetensors` file, by name."""

    def documents(self) -> Iterator[Document]:
        """Yield the documents; `InputError` for another format or anything but integers from 0."""
        path = input_path("tokens", self.input, WHAT)
        files = [path]
        if os.path.isdir(path):
            # A task of datatrove without documents leaves an empty one.
            found = files_below(path, "*.ds")
            files = [file for file in found if not os.path.isfile(file) or file.stat().st_size]
        if not files:
            raise InputError(f"the folder {path} has no .ds file with token ids: give {WHAT}")
        for file in files:
            yield from _documents(input_file("tokens", str(file), WHAT))


def _documents(path: Path) -> Iterator[Document]:
    if path.suffix.lower() not in READERS:
        raise InputError(f"{path} has the format {path.suffix or 'unknown'!r}: give {WHAT}")
    for ids, continues in READERS[path.suffix.lower()](path):
        if ids and min(ids) < 0:
            raise InputError(f"{path} holds the token id {min(ids)}: ids start at 0")
        if ids and max(ids).bit_length() > MOST_BITS:
            raise InputError(f"{path} holds the token id {max(ids)}: ids have 32 bits")
        yield Document(tokens=tuple(ids), continues=continues)


def _from_json(path: Path) -> Iterator[Ids]:
    try:
        content = json.loads(read_text(path, "file of token ids"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {reason(error)}") from error
    if not isinstance(content, list):
        raise InputError(f"{path} holds {kind_of(content)}, expected {SHAPES}")
    nested = bool(content) and all(isinstance(part, list) for part in content)
    for ids in content if nested else [content]:
        for item in ids:
            # bool is a subclass of int, and true is no token id
            if type(item) is not int or item.bit_length() > MOST_BITS:
                raise InputError(f"{path} holds {shown(item)}, expected {SHAPES}")
        yield ids, False


def _from_npy(path: Path) -> Iterator[Ids]:
    yield from _rows(open_array(path, ".npy file of integers"), str(path))


def _from_safetensors(path: Path) -> Iterator[Ids]:
    with open_tensors(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            kind = file.get_slice(name).get_dtype()
            if kind not in ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"):
                raise InputError(f"{path} tensor {name!r} has type {kind}, expected integers")
            yield from _rows(file.get_tensor(name), f"{path} tensor {name!r}")


def _from_bin(path: Path) -> Iterator[Ids]:
    import numpy as np

    with path.open("rb") as file:
        magic, _, count = (int.from_bytes(file.read(4), "little") for _ in range(3))
    kind, skipped = LLM_C.get(magic, ("<u2", 0))
    tokens = _mapped(path, np.dtype(kind), skipped)
    if skipped and len(tokens) != count:
        raise InputError(
            f"{path} says that it holds {count:,} tokens, and has {len(tokens):,}: copy it again"
        )
    yield from _rows(tokens, str(path))


def _from_ds(path: Path) -> Iterator[Ids]:
    import numpy as np

    index = path.with_name(f"{path.name}.index")
    if not os.path.isfile(index):
        raise InputError(f"{path} needs the ends of its documents: put {index.name} beside it")
    ends = _mapped(index, np.dtype("<u8")).astype(np.int64)
    size = path.stat().st_size
    width = size // max(1, int(ends[-1]))
    if width not in (2, 4) or width * ends[-1] != size or (np.diff(ends, prepend=0) < 0).any():
        raise InputError(f"{index} does not fit {path.name}: copy both again")
    tokens = _mapped(path, np.dtype(f"<u{width}"))
    begin = 0
    for end in ends.tolist():
        yield from _rows(tokens[begin:end], str(path))
        begin = end


def _mapped(path: Path, kind: "np.dtype", skipped: int = 0) -> "np.ndarray":
    """Return all numbers of a file behind its first bytes, read when they are used."""
    import numpy as np

    size = regular_file(path).stat().st_size - skipped
    if size <= 0 or size % kind.itemsize:
        raise InputError(f"{path} has {size:,} bytes, expected numbers of {kind.itemsize} bytes")
    return np.memmap(path, kind, "r", offset=skipped)


def _rows(array: "np.ndarray", where: str) -> Iterator[Ids]:
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise InputError(
            f"{where} is {array.dtype} of shape {list(array.shape)}, expected integers "
            "[tokens] or [documents, tokens]"
        )
    for row in array if array.ndim == 2 else [array]:
        for first in range(0, max(1, len(row)), PART_TOKENS):
            yield row[first : first + PART_TOKENS].tolist(), first + PART_TOKENS < len(row)
            if first:
                release_pages(array)


READERS = {
    ".json": _from_json,
    ".npy": _from_npy,
    ".safetensors": _from_safetensors,
    ".bin": _from_bin,
    ".ds": _from_ds,
}
