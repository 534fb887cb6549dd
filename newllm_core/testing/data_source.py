"""What every data source promises, whatever it reads."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from newllm_core.data.measures import contents
from newllm_core.data.sources.base import Broken, DataSource, Document, Note
from newllm_core.data.unfinished import check_document
from newllm_core.errors import PluginError, UserError
from newllm_core.plugins.guard import one_line
from newllm_core.testing.report import Failed, checks_of, run_checks

MAX_DOCUMENTS = 200
GARBAGE = b"\xff\xfe\x00\x81\xc3\x28 not a file of any known format \x00\x9d"


def check_data_source(
    source: type[DataSource],
    input: Path | str | None = None,
    options: Any = None,  # noqa: ANN401
) -> None:
    """Hold a data source to its contract.

    Args:
        source: the class.
        input: a small file or folder it reads, with at least one document; None if it reads none.
        options: an instance of its `Options`; the defaults if None.

    Raises:
        ConformanceError: with one line for each way in which checks failed.
    """
    given = None if input is None else str(input)
    with tempfile.TemporaryDirectory(prefix="newllm-") as folder:
        checks = checks_of(_Case(source, given, options, Path(folder)))
        if input is None:
            del checks["empty input"], checks["damaged input"]
        run_checks(source, checks)


def check_making(source: type[DataSource]) -> None:
    """Hold a data source to what needs no input: it can be made.

    Raises:
        ConformanceError: it cannot.
    """
    run_checks(source, {"making one": lambda: source(None, source.Options())})


@dataclass
class _Case:
    source: type[DataSource]
    input: str | None
    options: Any
    folder: Path

    def read(self, given: str | None) -> list[Document | Broken | Note]:
        source = self.source(given, self.options)
        return list(islice(source.documents(), MAX_DOCUMENTS))

    def check_documents(self) -> None:
        found = self.read(self.input)
        documents = [document for document in found if not isinstance(document, Broken | Note)]
        for number, document in enumerate(documents, start=1):
            try:
                check_document(document)
            except PluginError as error:
                raise Failed(f"of number {number}: {error}") from error
        if not any(document.tokens or any(contents(document)) for document in documents):
            raise Failed("none has any text, messages or tokens; give an input that has some")

    def check_determinism(self) -> None:
        if self.read(self.input) != self.read(self.input):
            raise Failed("two readings of the same input differ; sort files, seed random choices")
        source = self.source(self.input, self.options)
        first, second = (list(islice(source.documents(), MAX_DOCUMENTS)) for _ in range(2))
        if first != second:
            raise Failed("documents() differs the second time; keep no position in the source")

    def check_laziness(self) -> None:
        try:
            source = self.source(str(self.folder / "missing"), self.options)
        except Exception as error:
            raise Failed(
                f"making one with an input that is missing raised {one_line(error)}; read nothing "
                "before documents() is iterated"
            ) from error
        try:
            documents = source.documents()
        except Exception as error:
            raise Failed(
                f"calling documents() raised {one_line(error)} before anything was asked for; make "
                "it a generator (yield)"
            ) from error
        if not isinstance(documents, Iterator):
            raise Failed(
                f"documents() gave a {type(documents).__name__}, which holds the whole corpus in "
                "memory; yield each document"
            )

    def check_missing_input(self) -> None:
        missing = self.folder / f"missing{Path(self.input or '').suffix}"
        self.refuses(missing, "that is missing")

    def check_empty_input(self) -> None:
        self.refuses(self.stand_in("empty", b""), "that is empty")

    def check_damaged_input(self) -> None:
        path = self.stand_in("damaged", GARBAGE)
        try:
            self.read(str(path))
        except UserError:
            pass
        except Exception as error:
            raise Failed(
                f"an input with damaged content raised {one_line(error)}; raise "
                "newllm_core.errors.InputError with a line that names the file"
            ) from error

    def stand_in(self, folder: str, content: bytes) -> Path:
        """Make something of the input's name and kind, but with other content."""
        given = Path(self.input or "")
        path = self.folder / folder / given.name
        path.parent.mkdir()
        if not given.is_dir():
            path.write_bytes(content)
            return path
        path.mkdir()
        for file in sorted(given.rglob("*")):
            if file.is_file() and content:
                copy = path / file.relative_to(given)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
        return path

    def refuses(self, given: Path, what: str) -> None:
        try:
            self.read(str(given))
        except UserError as error:
            if given.name not in str(error):
                raise Failed(f"the error for an input {what} does not name it: {error}") from error
        except Exception as error:
            raise Failed(
                f"an input {what} raised {one_line(error)}; raise newllm_core.errors.InputError "
                "with a line that names it (newllm_core.data.sources.files.input_file does)"
            ) from error
        else:
            raise Failed(f"an input {what} raised nothing; raise newllm_core.errors.InputError")
