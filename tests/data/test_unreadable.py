"""Inputs that cannot be read: refused in one line that names them."""

import pytest

from newllm_core.data.sources.text_dir import TextDir
from newllm_core.data.sources.text_file import TextFile
from newllm_core.data.sources.tokens import Tokens
from newllm_core.data.sources.ultrachat import UltraChat
from newllm_core.data.sources.wikitext import WikiText
from newllm_core.errors import InputError

from .cases import assert_one_line_error, read


@pytest.mark.parametrize("source", [TextFile, TextDir, Tokens, UltraChat, WikiText])
def test_missing_files(tmp_path, source):
    path = tmp_path / "none.txt"
    with assert_one_line_error(InputError, path, "No such file", "--input"):
        read(source, path)


@pytest.mark.parametrize(
    ("source", "name", "data", "words"),
    [
        (TextFile, "a.txt", b"", ["is empty"]),
        (TextFile, "", None, ["is a folder"]),
        (TextDir, "a.txt", b"", ["not a folder"]),
        (TextDir, "", None, ["no file named '*.txt'", "source.pattern"]),
        (Tokens, "a.json", b"", ["empty"]),
        (Tokens, "", None, ["folder"]),
        (UltraChat, "", None, ["no file of rows", ".parquet"]),
        (UltraChat, "a.doc", b"x", [".doc'", ".parquet"]),
        (UltraChat, "a.json", b"[", []),
        (WikiText, "", None, ["no training file", "train.txt"]),
        (WikiText, "a.txt", b"", ["empty"]),
        (WikiText, "a.txt", b"ok\n\n \xff", ["byte 0xff in line 3; convert it to UTF-8"]),
        (WikiText, "a.parquet", b"PAR1 no", ["as parquet"]),
    ],
)
def test_other_inputs(tmp_path, source, name, data, words):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with assert_one_line_error(InputError, path, *words):
        read(source, path)


@pytest.mark.parametrize("data", [b"caf\xe9", "café".encode("utf-16")])
def test_a_source_without_the_option_is_not_told_of_encodings(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(InputError, match=r"convert it to UTF-8$"):
        read(WikiText, tmp_path / "a.txt")


@pytest.mark.parametrize(("source", "what"), [(TextFile, "text-file"), (Tokens, ".safetensors")])
def test_no_input(source, what):
    with assert_one_line_error(InputError, what, "--input"):
        list(source().documents())
