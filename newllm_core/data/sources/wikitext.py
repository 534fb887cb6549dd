"""The `wikitext` source: articles of WikiText (Merity et al. 2016), from the hub or local files."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from newllm_core.config import option
from newllm_core.data.sources.base import Broken, DataSource, Document, Split
from newllm_core.data.sources.files import CHUNK_BYTES, input_file, input_path, read_lines
from newllm_core.data.sources.rows import Row, hub_rows, local_rows
from newllm_core.errors import InputError

REPOSITORY = "Salesforce/wikitext"
HUB_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
SUFFIXES = (".txt", ".raw", ".tokens", ".parquet")
BLANK_LINE = " \n"
_TITLE = re.compile(r" = (?!= )[^\n]*(?<! =) = \r?\n?")


@dataclass(frozen=True)
class WikiTextOptions:
    """Which WikiText is read from the hub."""

    name: str = option(
        "wikitext-2-raw-v1", "Configuration of Salesforce/wikitext, when there is no input."
    )


class WikiText(DataSource):
    """One document per article.

    The input is a text file in WikiText's form, a `.parquet` file with a `text` column, or a
    folder with files for train, valid(ation) and test, such as `train.txt` and `wiki.valid.raw`;
    only train is needed. A single file does not come divided, whatever its name.
    """

    Options = WikiTextOptions

    def documents(self) -> Iterator[Document]:
        """Yield the articles in their order, training ones first.

        Raises:
            InputError: no such file, nothing to train on in a folder, or the hub is out of reach.
        """
        if self.input is None:
            for split in HUB_SPLITS:
                rows = hub_rows(REPOSITORY, split, name=self.options.name)
                where = f"{REPOSITORY} {self.options.name}"
                yield from _documents(_row_lines(rows, where), split)
            return
        what = "a WikiText file, or a folder with train, valid and test files"
        path = input_path("wikitext", self.input, what)
        if not path.is_dir():
            yield from _documents(_file_lines(input_file("wikitext", self.input, what)), None)
            return
        for split, files in split_files(path).items():
            lines = (line for file in files for line in _file_lines(file))
            yield from _documents(lines, split)


def split_files(folder: Path) -> dict[Split, list[Path]]:
    """Return the files of each split in a folder, told by a word of their name.

    Raises:
        InputError: no file to train on, or one split in two formats.
    """
    found: dict[Split, list[Path]] = {"train": [], "validation": [], "test": []}
    for path in sorted(folder.iterdir()):
        words = re.split(r"[._-]", path.stem.lower())
        splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if path.is_file() and path.suffix.lower() in SUFFIXES and len(splits) == 1:
            found[splits.pop()].append(path)
    if not found["train"]:
        raise InputError(f"{folder} has no training file: it needs one such as train.txt")
    for split, files in found.items():
        if len({path.suffix.lower() for path in files}) > 1:
            names = ", ".join(path.name for path in files)
            raise InputError(f"{folder} has several files for {split} ({names}): keep one format")
    return found


def articles(lines: Iterable[str], longest: int = CHUNK_BYTES) -> Iterator[tuple[str, bool]]:
    """Group lines into articles, losing none; says of each whether it ends there.

    An article starts at a title line (` = Title = `) between two blank lines: WikiText also has
    lines of tables that look like titles. The blank line before a title goes with the article. One
    of more than `longest` characters may come in several parts, of which only the last ends.
    """
    article: list[str] = []
    length = 0  # of the article so far, without parts that were given
    begun = False  # whether there were such parts
    held = [""]  # up to two lines that may start the next article; the file's start is blank
    for line in lines:
        blank = not line.strip()
        if len(held) == 2 and blank:
            if begun or any(part.strip() for part in article):
                yield "".join(article), True
                article, length, begun = [], 0, False
            article += held
            held = [line]
        elif len(held) == 1 and _TITLE.fullmatch(line):
            held.append(line)
        else:
            article += held
            held = [line] if blank else []
            article += [] if blank else [line]
            length += len(line)
            if length > longest:
                yield "".join(article), False
                article, length, begun = [], 0, True
    article += held
    if begun or any(part.strip() for part in article):
        yield "".join(article), True


def _documents(lines: Iterable[str], split: Split | None) -> Iterator[Document]:
    for part, ends in articles(lines):
        yield Document(text=part, split=split, continues=not ends)


def _file_lines(path: Path) -> Iterator[str]:
    if path.suffix.lower() == ".parquet":
        return _row_lines(local_rows(path), str(path))
    return read_lines(path)


def _row_lines(rows: Iterable[Row | Broken], where: str) -> Iterator[str]:
    for row in rows:
        if isinstance(row, Broken):
            raise InputError(row.problem)
        text = row.get("text")
        if not isinstance(text, str):
            has = ", ".join(row) or "nothing"
            raise InputError(f"{where} has no column 'text' (it has {has})")
        # The hub stores a blank line as "", but it is " \n" in WikiText's own files.
        *lines, last = (text or BLANK_LINE).split("\n")
        yield from (line + "\n" for line in lines)
        if last:
            yield last + "\n"
