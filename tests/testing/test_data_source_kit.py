"""The kit passes what is right, and says of each wrong what is wrong."""

import json
import random
from pathlib import Path

import pytest

from newllm_core.data.sources import python_docs
from newllm_core.data.sources.base import DataSource, Document
from newllm_core.data.sources.files import input_file, read_lines
from newllm_core.errors import InputError
from newllm_core.plugins.registry import DATA_SOURCES
from newllm_core.testing import ConformanceError, check_data_source

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
INPUTS = {
    "python-docs": None,
    "rows": "a.jsonl",
    "text-dir": "folder",
    "text-file": "a.txt",
    "tokens": "a.json",
    "ultrachat": "a.jsonl",
    "wikitext": "wiki.txt",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "b.txt").write_text("text")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "a.json").write_text("[[1, 2], [3]]")
    (tmp_path / "a.jsonl").write_text(json.dumps(CHAT) + "\n")
    (tmp_path / "wiki.txt").write_text(" \n = Title = \n \n Text . \n")
    return tmp_path


def test_every_built_in_is_here():
    own = {name for name, (first, *_) in DATA_SOURCES.plugins().items() if first.is_own}
    assert own == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_built_ins_conform(name, folder, monkeypatch):
    # A library of one module: the whole of Python's takes seconds to read.
    (folder / "module.py").write_text('"""A docstring."""')
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(folder))
    given = INPUTS[name]
    check_data_source(DATA_SOURCES.load(name), given and folder / given)


class Lines(DataSource):
    """How it ought to be."""

    def documents(self):
        for line in read_lines(input_file("lines", self.input, "text")):
            yield Document(text=line)


class Strings(Lines):
    def documents(self):
        for document in super().documents():
            yield document.text


class Negative(Lines):
    def documents(self):
        for _ in super().documents():
            yield Document(tokens=(1, -1))


class Nothing(Lines):
    def documents(self):
        list(super().documents())
        yield Document(text="")


class Listed(Lines):
    def documents(self):
        return list(super().documents())


class Shuffled(Lines):
    def documents(self):
        for document in super().documents():
            yield Document(text=document.text + str(random.random()))


class Forgetful(Lines):
    done = False

    def documents(self):
        if not self.done:
            yield from super().documents()
        self.done = True


class Eager(Lines):
    def __init__(self, input=None, options=None):
        super().__init__(input, options)
        self.text = Path(input).read_text()


class Bare(Lines):
    """Errors of Python instead of errors for users."""

    def documents(self):
        for line in Path(self.input).read_text(encoding="utf-8").splitlines():
            yield Document(text=line)


class Forgiving(Lines):
    def documents(self):
        if self.input and Path(self.input).exists():
            yield from super().documents()


class Vague(Lines):
    def documents(self):
        try:
            yield from super().documents()
        except InputError as error:
            raise InputError("cannot read it") from error


WRONG = [
    (Strings, "documents: of number 1: it yielded str, expected Document"),
    (Negative, "documents: of number 1: it yielded the token -1, expected an int of 32 bits"),
    (Nothing, "documents: none has any text"),
    (Listed, "laziness: calling documents() raised InputError"),
    (Shuffled, "determinism: two readings of the same input differ"),
    (Forgetful, "determinism: documents() differs the second time"),
    (Eager, "laziness: making one with an input that is missing raised FileNotFoundError"),
    (Bare, "missing input: an input that is missing raised FileNotFoundError"),
    (Bare, "damaged input: an input with damaged content raised UnicodeDecodeError"),
    (Bare, "empty input: an input that is empty raised nothing"),
    (Forgiving, "missing input: an input that is missing raised nothing"),
    (Vague, "missing input: the error for an input that is missing does not name it"),
]


def test_what_is_right_passes(folder):
    check_data_source(Lines, folder / "a.txt")


@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_explained(wrong, line, folder):
    with pytest.raises(ConformanceError) as caught:
        check_data_source(wrong, folder / "a.txt")
    message = str(caught.value)
    assert message.startswith(f"{__name__}:{wrong.__name__} fails ")
    assert any(part.strip().startswith(line) for part in message.splitlines())
