"""`open_dataset`: a prepared folder, checked and mapped into memory.

T: tokens of a split, n: its documents.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.data.dataset_info import (
    DATA_FILES,
    DTYPES,
    INFO_FILE,
    SPLIT_FILES,
    TOKENIZER_FILE,
    DatasetInfo,
    SplitInfo,
)
from newllm_core.errors import InputError, reason

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CHUNK_TOKENS = 1 << 22
AGAIN = "prepare the data again"


@dataclass(frozen=True)
class TokenSplit:
    """Train or validation.

    Attributes:
        tokens: ids of all documents one after another, read-only memory map, uint16/32 [T].
        document_starts: where each document starts, and T at the end, int64 [n+1].
        document_bytes: UTF-8 bytes of each document's text, int64 [n].
        num_bytes: their sum.
        num_words: words between white space, plus line ends.
    """

    tokens: "np.memmap[Any, Any]"
    document_starts: "Array"
    document_bytes: "Array"
    num_bytes: int
    num_words: int


@dataclass(frozen=True)
class PreparedDataset:
    """A folder that `prepare` wrote.

    Attributes:
        path: the folder.
        info: its `dataset.json`.
        tokenizer_json: for `TextTokenizer.from_json`.
        train: to learn from.
        validation: held out.
    """

    path: Path
    info: DatasetInfo
    tokenizer_json: str
    train: TokenSplit
    validation: TokenSplit

    @property
    def hash(self) -> str:
        """The same for the same tokens, boundaries and tokenizer."""
        return self.info.hash


def open_dataset(path: str | Path) -> PreparedDataset:
    """Open a prepared folder; everything is checked before any of it is used.

    Token files are checked by size and largest id, the smaller files by their hashes.

    Raises:
        InputError: the folder is missing, incomplete, damaged or of another format version.
    """
    folder = Path(path)
    info_path = folder / INFO_FILE
    if not folder.is_dir():
        raise InputError(f"no prepared data at {folder}: run newllm prepare --out {folder}")
    if not info_path.is_file():
        raise InputError(f"{folder} is not a prepared data set: it has no {INFO_FILE}")
    try:
        info = DatasetInfo.from_json(info_path.read_text(encoding="utf-8"), info_path)
        for name in DATA_FILES:
            _check_file(folder / name, info)
        tokenizer_json = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
        train = _open_split(folder, "train", info.train, info)
        validation = _open_split(folder, "validation", info.validation, info)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {folder}: {reason(error)}; {AGAIN}") from error
    return PreparedDataset(folder, info, tokenizer_json, train, validation)


def _check_file(path: Path, info: DatasetInfo) -> None:
    expected = info.files[path.name]
    if not path.is_file():
        raise InputError(f"{path} is missing: {AGAIN}")
    size = path.stat().st_size
    if size != expected.size:
        raise InputError(f"{path} has {size:,} bytes, expected {expected.size:,}: {AGAIN}")
    small = path.suffix != ".tokens"
    if small and hashlib.sha256(path.read_bytes()).hexdigest() != expected.sha256:
        raise InputError(f"{path} was altered, its hash is wrong: {AGAIN}")


def _open_split(folder: Path, split: str, counts: SplitInfo, info: DatasetInfo) -> TokenSplit:
    import numpy as np

    tokens_path, starts_path, bytes_path = (folder / name.format(split) for name in SPLIT_FILES)
    if not counts.tokens:
        raise InputError(f"{tokens_path} is empty: {AGAIN}")
    dtype = np.dtype(DTYPES[info.dtype])
    if tokens_path.stat().st_size != counts.tokens * dtype.itemsize:
        raise InputError(f"{tokens_path} does not hold {counts.tokens:,} tokens: {AGAIN}")
    tokens = np.memmap(tokens_path, dtype=dtype, mode="r")
    try:
        starts = np.load(starts_path, allow_pickle=False)
        sizes = np.load(bytes_path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{starts_path} or {bytes_path.name} is no array: {AGAIN}") from error
    fits = (
        starts.shape == (counts.documents + 1,)
        and sizes.shape == (counts.documents,)
        and starts[0] == 0
        and starts[-1] == counts.tokens
        and bool((np.diff(starts) > 0).all())
        and int(sizes.sum()) == counts.bytes
    )
    if not fits:
        raise InputError(f"{starts_path} does not fit {tokens_path.name}: {AGAIN}")
    for start in range(0, len(tokens), CHUNK_TOKENS):
        largest = int(tokens[start : start + CHUNK_TOKENS].max())
        if largest >= info.vocab_size:
            raise InputError(f"{tokens_path} holds id {largest} of {info.vocab_size}: {AGAIN}")
    return TokenSplit(tokens, starts, sizes, counts.bytes, counts.words)
