"""`open_dataset`: a prepared folder, checked and mapped into memory.

T: tokens of a split, n: its documents.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.data.dataset_info import (
    DTYPES,
    INFO_FILE,
    LARGEST_INFO,
    SPLIT_FILES,
    TOKENIZER_FILE,
    DatasetInfo,
    SplitInfo,
    data_files,
)
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError, reason
from newllm_core.files.from_strangers import read_text, regular_file
from newllm_core.files.names import quoted
from newllm_core.files.npy_files import open_array

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 1 << 22
# Larger token files are checked by size and largest id alone: their hash takes many seconds.
LARGEST_HASHED = 1 << 32
AGAIN = "prepare the data again"


@dataclass(frozen=True)
class TokenSplit:
    """Train, validation or test.

    Attributes:
        tokens: ids of all documents one after another, read-only memory map, uint16/32 [T].
        document_starts: where each document starts, and T at the end, int64 [n+1].
        document_bytes: UTF-8 bytes of each document's text, int64 [n]; 0 if they are not known.
        num_bytes: their sum; this and the following are those of `SplitInfo`.
    """

    tokens: "np.ndarray"
    document_starts: "np.ndarray"
    document_bytes: "np.ndarray"
    num_bytes: int | None
    num_words: int | None
    num_characters: int | None = None
    unknown_share: float | None = None
    lost_share: float | None = None


@dataclass(frozen=True)
class PreparedDataset:
    """A folder that `prepare` wrote, its `dataset.json` and its splits; test is optional.

    Wherever the path of such a folder is expected, this will do.
    """

    path: Path
    info: DatasetInfo
    tokenizer_json: str
    train: TokenSplit
    validation: TokenSplit
    test: TokenSplit | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def hash(self) -> str:
        """Return the same for the same tokens, boundaries and tokenizer."""
        return self.info.hash

    def split(self, name: str) -> TokenSplit:
        """Return the split called `name`; `InputError` if there is none."""
        if name not in self.info.splits:
            raise InputError(
                f"{self.path} has no split {name!r}, only {', '.join(self.info.splits)}: "
                "newllm prepare --test-fraction makes a test split"
            )
        found: TokenSplit = getattr(self, name)
        return found


def open_dataset(path: str | Path) -> PreparedDataset:
    """Open a prepared folder; everything is checked before any of it is used.

    `InputError` if it is missing, incomplete, damaged or of another format version.
    """
    folder = Path(path)
    if not os.path.exists(folder):
        raise InputError(f"no prepared data at {folder}: run newllm prepare --out {quoted(folder)}")
    if not os.access(folder, os.R_OK):
        raise InputError(f"cannot read {folder}: permission denied")
    before = os.stat(folder)
    try:
        return _open(folder)
    finally:
        # What is mapped stays as it is, also where a folder is removed; names lead elsewhere.
        if not (os.path.exists(folder) and os.path.samestat(before, os.stat(folder))):
            raise InputError(f"{folder} was replaced while it was read: run the command again")


def _open(folder: Path) -> PreparedDataset:
    info_path = folder / INFO_FILE
    if not os.path.isfile(info_path):
        raise InputError(f"{folder} is not a prepared data set: {_how_to_prepare(folder)}")
    text = read_text(info_path, "description of prepared data", limit=LARGEST_INFO)
    info = DatasetInfo.from_json(text, info_path)
    for name in data_files(info.splits):
        _check_file(folder / name, info)
    tokenizer_json = read_text(folder / TOKENIZER_FILE, "tokenizer")
    try:
        found = TextTokenizer.from_json(tokenizer_json)
    except InputError as error:
        raise InputError(f"{folder / TOKENIZER_FILE} is {error}: {AGAIN}") from error
    ids = found.vocab_size, found.base_vocab_size, found.end_id
    if ids != (info.vocab_size, info.base_vocab_size, info.end_id):
        raise InputError(f"{folder / TOKENIZER_FILE} does not fit {INFO_FILE}: {AGAIN}")
    splits = {name: _open_split(folder, name, counts, info) for name, counts in info.splits.items()}
    return PreparedDataset(folder, info, tokenizer_json, **splits)


def _how_to_prepare(path: Path) -> str:
    """Say what makes prepared data of a file of text or rows; of a folder, what it lacks."""
    if os.path.isdir(path):
        return f"it has no {INFO_FILE}: give the folder that newllm prepare --out DIR wrote"
    from newllm_core.data.sources.row_readers import source_of

    folder, source = quoted(Path("runs") / path.name.partition(".")[0]), source_of(path)
    command = f"newllm prepare --source {source} --input {quoted(path)} --out {folder}"
    return f"run {command} and use {folder}"


def _check_file(path: Path, info: DatasetInfo) -> None:
    """Check size and hash, and of token files the largest id, in one reading of little memory."""
    import numpy as np

    expected = info.files[path.name]
    if not os.path.lexists(path):
        raise InputError(f"{path} is missing: {AGAIN}")
    size = regular_file(path).stat().st_size
    if size != expected.size:
        raise InputError(f"{path} has {size:,} bytes, expected {expected.size:,}: {AGAIN}")
    holds_tokens = path.suffix == ".tokens"
    hashed = size <= LARGEST_HASHED
    largest, digest = 0, hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                if hashed:
                    digest.update(chunk)
                if holds_tokens and not len(chunk) % np.dtype(DTYPES[info.dtype]).itemsize:
                    largest = max(largest, int(np.frombuffer(chunk, DTYPES[info.dtype]).max()))
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    if hashed and digest.hexdigest() != expected.sha256:
        raise InputError(f"{path} was altered, its hash is wrong: {AGAIN}")
    if largest >= info.vocab_size:
        raise InputError(f"{path} holds id {largest} of {info.vocab_size}: {AGAIN}")


def _open_split(folder: Path, split: str, counts: SplitInfo, info: DatasetInfo) -> TokenSplit:
    import numpy as np

    tokens_path, starts_path, bytes_path = (folder / name.format(split) for name in SPLIT_FILES)
    dtype = np.dtype(DTYPES[info.dtype])
    if not 0 < counts.tokens * dtype.itemsize == info.files[tokens_path.name].size:
        raise InputError(f"{tokens_path} does not hold {counts.tokens:,} tokens: {AGAIN}")
    tokens = np.memmap(tokens_path, dtype=dtype, mode="r")
    starts, sizes = open_array(starts_path), open_array(bytes_path)
    fits = (
        starts.dtype == sizes.dtype == np.int64
        and starts.shape == (counts.documents + 1,)
        and sizes.shape == (counts.documents,)
        and starts[0] == 0
        and starts[-1] == counts.tokens
        and bool((starts[:-1] < starts[1:]).all())
        and bool((sizes >= 0).all())
        and int(sizes.sum()) == (counts.bytes or 0)
    )
    if not fits:
        raise InputError(f"{starts_path} does not fit {tokens_path.name}: {AGAIN}")
    known = counts.bytes, counts.words, counts.characters, counts.unknown_share, counts.lost_share
    return TokenSplit(tokens, starts, sizes, *known)
