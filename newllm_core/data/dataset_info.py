"""`dataset.json`: what a prepared data set is, and how it came about."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newllm_core.data.policy import PolicyReport
from newllm_core.errors import InputError
from newllm_core.files.from_strangers import require_version
from newllm_core.files.strict_json import parse_json

FORMAT = "newllm-dataset"
FORMAT_VERSION = 1
INFO_FILE = "dataset.json"
LARGEST_INFO = 1 << 22
TOKENIZER_FILE = "tokenizer.json"
SPLITS = ("train", "validation", "test")  # the last one is optional
SHARES = ("dropped_line_share", "dropped_byte_share")  # derived, written for readers
SPLIT_FILES = ("{}.tokens", "{}.documents.npy", "{}.bytes.npy")
DTYPES = {"uint16": "<u2", "uint32": "<u4"}


def data_files(splits: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a prepared folder with these splits, without `INFO_FILE`."""
    return (TOKENIZER_FILE, *(name.format(split) for split in splits for name in SPLIT_FILES))


@dataclass(frozen=True)
class SplitInfo:
    """Counts of one split; those of text are None where documents are token ids.

    Attributes:
        words: those between white space, plus line ends; None where hardly any spaces part them.
        characters: Unicode code points; None, as the following, where they were not counted.
        unknown_tokens: tokens for whatever the vocabulary lacks.
        lost_bytes: UTF-8 bytes that the tokens do not give back.
    """

    documents: int
    tokens: int
    bytes: int | None
    words: int | None
    characters: int | None = None
    unknown_tokens: int | None = None
    lost_bytes: int | None = None

    @property
    def unknown_share(self) -> float | None:
        """Return the share of unknown tokens."""
        return None if self.unknown_tokens is None else self.unknown_tokens / max(self.tokens, 1)

    @property
    def lost_share(self) -> float | None:
        """Return the share of lost bytes."""
        return None if self.lost_bytes is None else self.lost_bytes / max(self.bytes or 0, 1)


@dataclass(frozen=True)
class SourceInfo:
    """Where documents came from, and which code read them."""

    name: str
    input: str | None
    options: Mapping[str, Any]
    distribution: str
    version: str


@dataclass(frozen=True)
class FileInfo:
    """Size and SHA-256 of one file of the folder."""

    size: int
    sha256: str


@dataclass(frozen=True)
class DatasetInfo:
    """Everything in `dataset.json`.

    Attributes:
        dtype: of token ids, a key of `DTYPES`.
        vocab_size, base_vocab_size, end_id: as for `TextTokenizer`.
        roles: token that opens a message of a role.
        validation: counts, of what the policy left.
        duplicates_dropped: held-out documents left out because another split has the same content.
        val_source: of the validation documents, where it is a separate one.
        data: the data section of the config.
        files: the other files of the folder.
        broken: rows of the sources that could not be read and were left out.
        blank: documents of the sources without any text, which were left out.
    """

    dtype: str
    vocab_size: int
    base_vocab_size: int
    end_id: int
    roles: Mapping[str, int]
    train: SplitInfo
    validation: SplitInfo
    policy: PolicyReport
    duplicates_dropped: int
    source: SourceInfo
    val_source: SourceInfo | None
    data: Mapping[str, Any]
    seed: int
    files: Mapping[str, FileInfo]
    broken: int = 0
    blank: int = 0
    test: SplitInfo | None = None

    @property
    def splits(self) -> dict[str, SplitInfo]:
        """Return the counts of the splits there are, by name."""
        found = {name: getattr(self, name) for name in SPLITS}
        return {name: counts for name, counts in found.items() if counts is not None}

    @property
    def sources(self) -> list[SourceInfo]:
        """Return the training source, then the separate one of validation if there is one."""
        return [self.source] if self.val_source is None else [self.source, self.val_source]

    @property
    def hash(self) -> str:
        """Return a hash of every other file: the same for the same data, wherever it came from."""
        lines = "".join(f"{self.files[name].sha256}  {name}\n" for name in sorted(self.files))
        return hashlib.sha256(lines.encode("utf-8")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries: the content of `dataset.json`."""
        content = dataclasses.asdict(self)
        content["policy"] |= {name: getattr(self.policy, name) for name in SHARES}
        content["splits"] = {
            name: counts for name in SPLITS if (counts := content.pop(name)) is not None
        }
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "hash": self.hash,
            **{name: content[name] for name in sorted(content)},
        }

    def to_json(self) -> str:
        """Return the text of `dataset.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> "DatasetInfo":
        """Read what `to_json` wrote; `where` is the file, which an `InputError` names."""
        try:
            content = parse_json(text)
        except ValueError as error:
            raise InputError(f"{where} is not JSON: prepare the data again") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise InputError(f"{where} is not the description of a prepared data set")
        version = content.pop("format_version", None)
        require_version(where, version, FORMAT_VERSION, "prepare the data again")
        try:
            written_hash = content.pop("hash")
            info = _from_dict(content)
            altered = info.hash != written_hash
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{where} is damaged ({type(error).__name__}: {error}): prepare the data again"
            ) from error
        if altered:
            raise InputError(f"{where} was altered, its hash is wrong: prepare the data again")
        return info


def _from_dict(content: dict[str, Any]) -> DatasetInfo:
    splits = {name: SplitInfo(**counts) for name, counts in content.pop("splits").items()}
    policy = {name: value for name, value in content["policy"].items() if name not in SHARES}
    val_source = content["val_source"]
    parts = {
        **splits,
        "policy": PolicyReport(**policy),
        "source": SourceInfo(**content["source"]),
        "val_source": None if val_source is None else SourceInfo(**val_source),
        "files": {name: FileInfo(**content["files"][name]) for name in data_files(splits)},
    }
    info = DatasetInfo(**{**content, **parts})
    for part in (*info.splits.values(), info.policy, *info.files.values(), *info.sources):
        _check_types(part)
    _check_types(info)
    if info.dtype not in DTYPES:
        raise ValueError(f"dtype {info.dtype!r}")
    ids = (info.end_id, *info.roles.values())
    if not all(type(number) is int and 0 <= number < info.vocab_size for number in ids):
        raise ValueError("the end token or a role is outside the vocabulary")
    if info.vocab_size > 1 << 8 * int(DTYPES[info.dtype][-1]):
        raise ValueError(f"a vocabulary of {info.vocab_size:,} does not fit {info.dtype}")
    return info


def _check_types(part: Any) -> None:  # noqa: ANN401 - any of the dataclasses above
    """Raise `ValueError` for a field that has not its annotated type; integers are counts."""
    for spec in dataclasses.fields(part):
        value, kind = getattr(part, spec.name), spec.type
        counted = kind is int or (kind == int | None and value is not None)
        if counted and not (type(value) is int and value >= 0):
            raise ValueError(f"{spec.name} is {value!r:.40}, which is no count")
        if (kind is str and not isinstance(value, str)) or (
            spec.name in ("options", "roles", "data") and not isinstance(value, dict)
        ):
            raise ValueError(f"{spec.name} is {value!r:.40}")
