"""Which files a data set consists of, and which split each of them is."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from newllm_core.data.hub import asking_hub
from newllm_core.data.sources.base import Split
from newllm_core.data.sources.files import files_below
from newllm_core.data.sources.opening import format_of, require_extra
from newllm_core.errors import InputError
from newllm_core.files.from_strangers import read_text
from newllm_core.files.strict_json import parse_json

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# Where none of these words is in a name, as `datasets` has it.
OTHER_NAMES: dict[str, Split] = {
    "training": "train",
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
}
# What `datasets` writes beside rows.
STATE, SAVED_SPLITS = "state.json", "dataset_dict.json"
METADATA = (STATE, SAVED_SPLITS, "dataset_info.json", "dataset_infos.json")

Place = Path | str  # text is a URL
Part = tuple[Place, Split | None]


def words_of(name: str) -> list[str]:
    """Return the words of a file's name, in small letters."""
    return re.split(r"[^a-z]+", name.lower())


def split_named(name: str) -> Split | None:
    """Return the split that a word of a file's name says; none if two words disagree."""
    words = words_of(name)
    for names in (SPLIT_NAMES, OTHER_NAMES):
        splits = {names[word] for word in words if word in names}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def folder_parts(folder: Path, formats: Collection[str]) -> tuple[list[Part], list[str]]:
    """Return the files of a folder and below it in one of `formats`, and what to say of them.

    They may be compressed. A folder that `datasets.save_to_disk` wrote has the files that it lists.
    `InputError` if there is none.
    """
    if os.path.isfile(folder / SAVED_SPLITS):
        splits = _listed(folder / SAVED_SPLITS, "splits")
        others = f"give one of them with --input {splits[0]}" if splits else ""
        saved = {split.name: _listed(split / STATE, "_data_files") for split in splits}
        return _named(saved, str(folder), SPLIT_NAMES, others)
    if os.path.isfile(folder / STATE):
        return [(path, None) for path in _listed(folder / STATE, "_data_files")], []
    found = [
        path
        for path in files_below(folder)
        if format_of(path) in formats and path.name not in METADATA
    ]
    if not found:
        raise InputError(f"{folder} has no file of rows: give one with {', '.join(formats)}")
    return divided_by_names(folder, found)


def divided_by_names(folder: Path, found: Sequence[Path]) -> tuple[list[Part], list[str]]:
    """Return files with the splits that their names say, and what to say of that."""
    named = [split_named(str(path.relative_to(folder))) for path in found]
    counts = Counter(split for split in named if split is not None)
    if len(counts) < 2 and None not in named:
        return [(path, None) for path in found], []  # one split is no division
    said = ", ".join(f"{count} of {split}" for split, count in sorted(counts.items()))
    parts = _held_out_first(zip(found, named, strict=True))
    return parts, [f"files by the words in their names: {said}"] if said else []


def hub_parts(
    name: str, config: str | None = None, names: Mapping[str, Split] = SPLIT_NAMES
) -> tuple[list[Part], list[str]]:
    """Return the files of a data set on the hub, or in a folder laid out like one.

    `name` is such as Salesforce/wikitext, `config` one of its configurations; `names` are splits
    that are read, and what each is here. `InputError` where the hub has no such thing.
    """
    datasets = require_extra("datasets", "a data set of the hub")
    instead = "give a local copy with --input PATH"
    with asking_hub(name, instead, is_local=os.path.exists(name)):
        files = datasets.load_dataset_builder(name, config).config.data_files or {}
    found: dict[str, list[Place]] = {
        str(split): [file if "://" in file else Path(file) for file in of]
        for split, of in files.items()
    }
    return _named(found, name, names, "give a file of it with --input PATH")


def _named(
    files: Mapping[str, Sequence[Place]], where: str, names: Mapping[str, Split], instead: str
) -> tuple[list[Part], list[str]]:
    """Sort files that lie under names of splits; `instead` is what to do where none is train."""
    if len(files) == 1:
        return [(path, None) for of in files.values() for path in of], []
    known = {name: names[name] for name in files if name in names}
    if "train" not in known.values():
        raise InputError(
            f"{where} has no split called train (it has {', '.join(files) or 'none'}): {instead}"
        )
    others = [f"the split {name!r} is not read" for name in files if name not in known]
    parts = ((path, split) for name, split in known.items() for path in files[name])
    return _held_out_first(parts), others


def _held_out_first(parts: Iterable[Part]) -> list[Part]:
    """Sort so that whoever has read enough to train on has read all splits."""
    return sorted(parts, key=lambda part: part[1] in (None, "train"))


def _listed(path: Path, key: str) -> list[Path]:
    """Return the files or folders beside `path` that it lists: names, or mappings with one."""
    try:
        entries = parse_json(read_text(path))[key]
        names = [entry if isinstance(entry, str) else entry["filename"] for entry in entries]
        return [path.with_name(name) for name in names]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not what datasets.save_to_disk writes") from error
