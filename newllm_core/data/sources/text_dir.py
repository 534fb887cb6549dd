"""The `text-dir` source: the text files of a folder and everything below it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from newllm_core.config import option
from newllm_core.data.sources.base import Document
from newllm_core.data.sources.files import files_below, input_folder
from newllm_core.data.sources.text_file import TextFile, TextFileOptions, text_documents
from newllm_core.errors import ConfigError, InputError


@dataclass(frozen=True)
class TextDirOptions(TextFileOptions):
    """Which files are read, and how each becomes documents."""

    pattern: str = option("*.txt", "Names of the files to read, in the folder and below it.")


class TextDir(TextFile):
    """One document per file (or per part of it), in the order of the files' relative paths.

    Files and folders whose names begin with a dot are left out.
    """

    Options = TextDirOptions

    def documents(self) -> Iterator[Document]:
        """Yield the documents of every file; `InputError` without any, or of another encoding."""
        folder = input_folder("text-dir", self.input, "a folder of text files")
        for path in self._files(folder):
            yield from text_documents(path, self.separator, encoding=self.encoding)

    def _files(self, folder: Path) -> list[Path]:
        pattern = self.options.pattern
        try:
            found = files_below(folder, pattern)
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(
                f"source.pattern is {pattern!r}: give a relative pattern such as *.txt"
            ) from error
        if not found:
            raise InputError(f"{folder} has no file named {pattern!r}: set source.pattern")
        return found
