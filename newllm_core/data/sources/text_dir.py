"""The `text-dir` source: the text files of a folder and everything below it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from newllm_core.config import option
from newllm_core.data.sources.base import Document, Note
from newllm_core.data.sources.files import files_below, input_path
from newllm_core.data.sources.row_files import divided_by_names, words_of
from newllm_core.data.sources.text_file import TextFile, TextFileOptions, text_documents
from newllm_core.errors import ConfigError, InputError


@dataclass(frozen=True)
class TextDirOptions(TextFileOptions):
    """Which files are read, and how each becomes documents."""

    pattern: str = option("*.txt", "Names of the files to read, in the folder and below it.")


class TextDir(TextFile):
    """One document per file (or per part of it), in the order of the files' relative paths.

    Files and folders whose names begin with a dot are left out. With the words train, valid or test
    in the names of files these are the splits.
    """

    Options = TextDirOptions

    def documents(self) -> Iterator[Document | Note]:
        """Yield the documents of every file; `InputError` without any, or of another encoding."""
        what, pattern = "a folder of text files", self.options.pattern
        folder = input_path("text-dir", self.input, what)
        if not os.path.isdir(folder):
            raise InputError(f"{folder} is not a folder, source text-dir needs {what}")
        try:
            found = files_below(folder, pattern)
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(
                f"source.pattern is {pattern!r}: give a relative pattern such as *.txt"
            ) from error
        if not found:
            raise InputError(f"{folder} has no file named {pattern!r}: set source.pattern")
        parts, notes = divided_by_names(folder, found)
        # In a folder of any text, a file may be about a test, or about training.
        if not any("train" in words_of(str(path.relative_to(folder))) for path in found):
            parts, notes = [(path, None) for path in found], []
        yield from map(Note, notes)
        for path, split in parts:
            yield from text_documents(Path(path), self.separator, self.encoding, split)
