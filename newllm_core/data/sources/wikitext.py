"""The `wikitext` source: articles of WikiText (Merity et al. 2016), from the hub or local files."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, islice, tee
from operator import itemgetter
from pathlib import Path

from newllm_core.config import option
from newllm_core.data.sources.base import Broken, DataSource, Document, Split
from newllm_core.data.sources.decoding import CHUNK_BYTES, read_lines
from newllm_core.data.sources.files import input_file, input_path
from newllm_core.data.sources.opening import format_of, path_name
from newllm_core.data.sources.row_files import Part, Place, hub_parts, split_named
from newllm_core.data.sources.row_readers import read_rows
from newllm_core.errors import InputError

REPOSITORY = "Salesforce/wikitext"
SUFFIXES = (".txt", ".raw", ".tokens", ".parquet")
BLANK_LINE = " \n"
END = "="  # what stands for lines behind the last one: neither blank nor a title
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
        """Yield the articles in their order, held-out ones first; `InputError` without any."""
        for split, parts in groupby(self._parts(), itemgetter(1)):
            lines = (line for place, _ in parts for line in _lines(place))
            for part, ends in articles(lines):
                yield Document(text=part, split=split, continues=not ends)

    def _parts(self) -> list[Part]:
        if self.input is None:
            return hub_parts(REPOSITORY, self.options.name)[0]
        what = "a WikiText file, or a folder with train, valid and test files"
        path = input_path("wikitext", self.input, what)
        if os.path.isdir(path):
            return split_files(path)
        return [(input_file("wikitext", self.input, what), None)]


def split_files(folder: Path) -> list[Part]:
    """Return the files of each split in a folder, told by a word of their name; train last.

    `InputError` if there is none to train on, or one split is in two formats.
    """
    found: dict[Split, list[Path]] = {"validation": [], "test": [], "train": []}
    for path in sorted(folder.iterdir()):
        split = split_named(path.name)
        if os.path.isfile(path) and format_of(path) in SUFFIXES and split is not None:
            found[split].append(path)
    if not found["train"]:
        raise InputError(f"{folder} has no training file: it needs one such as train.txt")
    for split, files in found.items():
        if len({format_of(path) for path in files}) > 1:
            names = ", ".join(path.name for path in files)
            raise InputError(f"{folder} has several files for {split} ({names}): keep one format")
    return [(path, split) for split, files in found.items() for path in files]


def articles(lines: Iterable[str], longest: int = CHUNK_BYTES) -> Iterator[tuple[str, bool]]:
    """Group lines into articles, losing none; says of each whether it ends there.

    An article starts at a title line (` = Title = `) between two blank lines: WikiText also has
    lines of tables that look like titles. The blank line before a title goes with the article. One
    of more than `longest` characters may come in several parts, of which only the last ends.
    """
    article: list[str] = []
    length = 0  # of the article so far, without parts that were given
    begun = False  # whether there were such parts
    # The file's start is as good as a blank line, its end is not.
    first, second, third = tee(chain([""], lines, [END, END]), 3)
    second, third = islice(second, 1, None), islice(third, 2, None)
    for line, title, after in zip(first, second, third, strict=False):
        blank = not line.strip()
        starts = blank and _TITLE.fullmatch(title) and not after.strip()
        if starts and (begun or any(map(str.strip, article))):
            yield "".join(article), True
            article, length, begun = [], 0, False
        article.append(line)
        length += len(line)
        if length > longest and not blank:
            yield "".join(article), False
            article, length, begun = [], 0, True
    if begun or any(map(str.strip, article)):
        yield "".join(article), True


def _lines(place: Place) -> Iterator[str]:
    if isinstance(place, Path) and format_of(place) != ".parquet":
        yield from read_lines(place)
        return
    for row in read_rows(place):
        if isinstance(row, Broken):
            raise InputError(row.problem)
        text = row.get("text")
        if not isinstance(text, str):
            has = ", ".join(row) or "nothing"
            raise InputError(f"{path_name(place)} has no column 'text' (it has {has})")
        # The hub stores a blank line as "", but it is " \n" in WikiText's own files.
        *lines, last = (text or BLANK_LINE).split("\n")
        yield from (line + "\n" for line in lines)
        if last:
            yield last + "\n"
