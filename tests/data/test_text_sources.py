import re
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.data.sources.base import Document
from newllm_core.data.sources.decoding import read_chunks, read_lines
from newllm_core.data.sources.text_dir import TextDir
from newllm_core.data.sources.text_file import (
    TextFile,
    TextFileOptions,
    split_chunks,
    text_documents,
)
from newllm_core.errors import ConfigError, InputError

from .cases import assert_one_line_error, joined, read, write


def texts(path, source=TextFile, **options):
    return [document.text for document in read(source, path, **options)]


def test_a_file_without_separator_is_one_document_byte_for_byte(tmp_path):
    content = "é\r\nline\rx\x85\u2028\n\n 𝄞 "
    assert texts(write(tmp_path / "a.txt", content)) == [content]


def test_the_separator_is_found_anywhere_and_belongs_to_no_document(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo\n\nthree\n\n\n\n \n\nfour")
    found = texts(path, document_separator=r"\n\n")
    assert found == ["one\ntwo", "three", "four"]  # blank parts are none


def test_a_separator_of_a_line_of_its_own(tmp_path):
    path = write(tmp_path / "a.txt", "a --- b\n---\nc")
    assert texts(path, document_separator=r"\n---\n") == ["a --- b", "c"]


@given(
    text=st.text(alphabet="ab\n", max_size=40),
    separator=st.text(alphabet="ab\n", min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 40)),
    longest=st.integers(1, 9),
)
def test_split_in_chunks_is_split_of_the_whole(text, separator, cuts, longest):
    edges = [0, *sorted(cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(edges)]
    chunks = [chunk for chunk in chunks if chunk] if "".join(chunks) == text else [text]
    assert joined(split_chunks(chunks, separator, longest)) == text.split(separator)


@pytest.mark.parametrize("separator", ["", r"\d", "a\\", r"\\\x"])
def test_wrong_separators(separator):
    with assert_one_line_error(ConfigError, "document_separator"):
        TextFile("x", TextFileOptions(separator))


@given(text=st.text(max_size=50), size=st.integers(1, 7))
def test_reading_in_small_chunks(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("chunks") / "a.txt"
    path.write_bytes(text.encode("utf-8"))
    expected = text.removeprefix("\ufeff")
    with mock.patch("newllm_core.data.sources.decoding.CHUNK_BYTES", size):
        assert "".join(read_chunks(path)) == expected
        assert list(read_lines(path)) == re.findall(r"[^\n]*\n|[^\n]+", expected)


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfx\xef\xbb\xbf")
    assert texts(path) == ["x\ufeff"]
    write(path, "\ufeffx\ufeff".encode("utf-16-le"))
    assert texts(path, encoding="utf-16-le") == texts(path, encoding="utf-16") == ["x\ufeff"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"ab\xffcd\n\xfe", "byte 0xff in line 1;"),
        ("é\n".encode() * 5 + b"\r\xe2\x28", "byte 0xe2 in line 6;"),
        (b"\na" * 9 + "𝄞".encode()[:3], "byte 0xf0 in line 10;"),  # cut off where the file ends
        (b"a\n\xed\xa0\x80", "byte 0xed in line 2;"),  # half of a pair of UTF-16
        ("text".encode("utf-16"), "it begins as UTF-16 does;"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 1 << 20])
def test_bytes_that_are_not_utf8_are_located(tmp_path, monkeypatch, data, found, chunk_bytes):
    monkeypatch.setattr("newllm_core.data.sources.decoding.CHUNK_BYTES", chunk_bytes)
    path = write(tmp_path / "a.txt", data)
    with assert_one_line_error(InputError, path, found):
        list(text_documents(path, None))
    with assert_one_line_error(InputError, path, found):
        list(read_lines(path))


def test_a_folder_is_read_recursively_in_the_order_of_relative_paths(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "a.txt", "a/skip.md"):
        write(tmp_path / name, name)
    for name, blank in (("empty.txt", ""), ("blank.txt", " \n")):
        write(tmp_path / name, blank)
    (tmp_path / "folder.txt").mkdir()
    assert texts(tmp_path, TextDir) == ["a/b/c.txt", "a/z.txt", "a.txt", "b.txt"]
    assert texts(tmp_path, TextDir, pattern="*.md") == ["a/skip.md"]
    split = texts(tmp_path, TextDir, pattern="a/*.txt", document_separator="/")
    assert split == ["a", "z.txt"]


def test_a_pattern_must_be_relative(tmp_path):
    with assert_one_line_error(ConfigError, "source.pattern", "/abs/*.txt"):
        texts(tmp_path, TextDir, pattern="/abs/*.txt")


def test_nothing_is_read_before_documents_are_asked_for(tmp_path):
    documents = TextFile(str(tmp_path / "missing.txt")).documents()
    with pytest.raises(InputError, match=r"missing\.txt"):
        next(iter(documents))


def test_files_of_a_folder_are_the_splits_that_their_names_say(tmp_path):
    for name in ("ptb.train.txt", "ptb.valid.txt", "ptb.eval.txt", "other.txt"):
        write(tmp_path / name, name)
    found = {d.text: d.split for d in read(TextDir, tmp_path) if isinstance(d, Document)}
    assert found == {
        "ptb.valid.txt": "validation",
        "ptb.eval.txt": "test",
        "ptb.train.txt": "train",
        "other.txt": None,
    }
    (tmp_path / "ptb.train.txt").unlink()  # then the others may be about anything
    assert {document.split for document in read(TextDir, tmp_path)} == {None}
