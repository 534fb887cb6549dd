"""Text as it comes: every kind of damage has one known outcome."""

import json
import resource
import subprocess
import sys

import pytest
from tokenizers import Tokenizer

from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.base import Broken, Document
from newllm_core.data.sources.text_file import TextFile
from newllm_core.errors import InputError, PluginError

from .cases import BAR, Recorder, assert_one_line_error, documents_of, run, write


def prepare_text(tmp_path, text, options=BAR, **data):
    path = write(tmp_path / "a.txt", text)
    return run(tmp_path / "out", options, input=path, keep=True, **data)


def texts_of(folder):
    return {text for split in documents_of(folder) for text in split}


def test_an_empty_corpus(tmp_path):
    for text in (" \n|\t| \u3000\n", "\ufeff"):
        with assert_one_line_error(InputError, "a.txt", "no documents with any text"):
            prepare_text(tmp_path, text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_one_token_on_each_side(tmp_path):
    info = prepare_text(tmp_path, "a|b", vocab_size=258)
    assert (info.train.tokens, info.validation.tokens) == (2, 2)  # and the end token
    assert texts_of(tmp_path / "out") == {"a", "b"}


def test_one_character_cannot_be_divided(tmp_path):
    with assert_one_line_error(InputError, "1 documents with 1 distinct", "--val-input"):
        prepare_text(tmp_path, "x")


def test_a_long_line_without_any_space(tmp_path, monkeypatch):
    """A single word of any length is cut to be held; nothing of it is lost."""
    monkeypatch.setattr("newllm_core.data.tokenizer.LONGEST_WORD", 5000)
    monkeypatch.setattr("newllm_core.data.spool.BATCH_BYTES", 3000)
    monkeypatch.setattr("newllm_core.data.sources.decoding.CHUNK_BYTES", 1000)
    long = "é" + "ab" * 40_000
    info = prepare_text(tmp_path, f"{long}|short text", val_fraction=0)
    assert texts_of(tmp_path / "out") == {long, "short text"}
    assert info.train.bytes + info.validation.bytes == len(long) + 1 + 10
    words = {info.train.words, info.validation.words}
    assert words == {None, 2}  # 80,001 characters without a space are no word


def test_bytes_that_are_no_text(tmp_path):
    with assert_one_line_error(InputError, "not UTF-8", "byte 0xff in line 2", "convert it"):
        prepare_text(tmp_path, b"a\nc\xff|d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_characters_that_are_seldom_seen_are_text(tmp_path):
    odd = ["nul\0inside", "cr\r\nlf\r", "\ufeffmark", "\x1b[31m", "\U0010ffff", "\x85x\u2028"]
    prepare_text(tmp_path, "\ufeff" + "|".join(odd))
    # A byte order mark is one at the beginning of a file only.
    assert texts_of(tmp_path / "out") == set(odd)


def test_a_file_in_a_folder_that_is_no_text_is_named(tmp_path):
    write(tmp_path / "folder" / "a.txt", "one")
    path = write(tmp_path / "folder" / "b.txt", b"two\n\r\n\xe9")
    with assert_one_line_error(InputError, path, "byte 0xe9 in line 3"):
        run(tmp_path / "out", source="text-dir", input=tmp_path / "folder")


def chat(text):
    return json.dumps({"messages": [{"role": "user", "content": text}]})


def prepare_lines(tmp_path, lines, progress=None, **data):
    path = write(tmp_path / "chats.jsonl", "\n".join(lines))
    return run(
        tmp_path / "out", source="ultrachat", input=path, progress=progress, keep=True, **data
    )


BROKEN = [
    '{"messages": [',
    '{"text": "another schema"}',
    "[]",
    chat("half \ud800 a pair"),
    '{"messages": [{"role": "user"}]}',
]


def test_broken_lines_are_counted_reported_and_left_out(tmp_path):
    lines = [chat(f"number {i}") for i in range(95)]
    for place, line in enumerate(BROKEN):
        lines.insert(20 * place, line)
    progress = Recorder()
    info = prepare_lines(tmp_path, lines, progress, max_broken_share=0.05)
    assert info.train.documents + info.validation.documents == 95
    assert info.broken == open_dataset(tmp_path / "out").info.broken == 5
    (warning,) = [line for line in progress.warnings if "broken" in line]
    assert "5 of 100 rows are broken (5.00%)" in warning
    assert "line 1 is not JSON" in warning


@pytest.mark.parametrize("share", [0, 0.01, 0.049])
def test_too_many_broken_lines_are_an_error(tmp_path, share):
    lines = [*BROKEN, *(chat(f"number {i}") for i in range(95))]
    with assert_one_line_error(
        InputError, "chats.jsonl", "5 of 100", "max_broken_share", "line 1 is not JSON"
    ):
        prepare_lines(tmp_path, lines, max_broken_share=share)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl"]


def test_nothing_but_broken_lines(tmp_path):
    with assert_one_line_error(InputError, "5 of 5"):
        prepare_lines(tmp_path, BROKEN, max_broken_share=0.99)
    with assert_one_line_error(InputError, "no documents with any text"):
        prepare_lines(tmp_path, BROKEN, max_broken_share=1)


def test_line_ends_and_marks_of_other_systems_in_json_lines(tmp_path):
    text = "\ufeff" + "\r\n".join([chat("one"), "", chat("two"), chat("three\r\n"), ""])
    path = write(tmp_path / "chats.jsonl", text)
    info = run(tmp_path / "out", source="ultrachat", input=path, keep=True)
    assert (info.train.documents + info.validation.documents, info.broken) == (3, 0)
    assert texts_of(tmp_path / "out") == {"one", "two", "three\r\n"}


def test_any_source_may_yield_what_is_broken(tmp_path, monkeypatch):
    found = [Document(text="one"), Broken("page 3: unreadable"), Document(text="two")]
    monkeypatch.setattr(TextFile, "documents", lambda self: iter(found))
    info = run(tmp_path / "out", input="x", max_broken_share=0.5, keep=True)
    assert (info.train.documents, info.validation.documents, info.broken) == (1, 1, 1)
    with assert_one_line_error(InputError, "1 of 3 rows", "page 3: unreadable"):
        run(tmp_path / "again", input="x")


def test_a_document_that_never_ends_is_a_fault_of_its_source(tmp_path, monkeypatch):
    found = [Document(text="one"), Document(text="two", continues=True)]
    monkeypatch.setattr(TextFile, "documents", lambda self: iter(found))
    with assert_one_line_error(PluginError, "text-file", "continues, but nothing follows"):
        run(tmp_path / "out", input="x")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("newllm_core.data.sources.text_file.CHUNK_BYTES", 512)
    monkeypatch.setattr("newllm_core.data.sources.decoding.CHUNK_BYTES", 512)
    monkeypatch.setattr("newllm_core.data.spool.BATCH_BYTES", 1000)
    monkeypatch.setattr("newllm_core.data.split_encoder.PART_CHARACTERS", 300)


@pytest.mark.parametrize("separated", [False, True])
def test_a_document_in_many_parts_is_the_document(tmp_path, small_parts, separated, bpe):
    """Ids, bytes, words and digest are those of the whole, whatever it was read in."""
    (tmp_path / "tokenizer.json").write_text(bpe.to_json(), encoding="utf-8")
    long = "".join(f"the cat  sat {i}\non the é mat.\n\n" for i in range(400))
    train = write(tmp_path / "train.txt", f"{long}|the log" if separated else long)
    write(tmp_path / "val" / "b.txt", "the dog sat on the mat")
    info = run(
        tmp_path / "out",
        BAR if separated else {},
        input=train,
        val_source="text-dir",
        val_input=tmp_path / "val",
        tokenizer=tmp_path / "tokenizer.json",
        keep=True,
    )
    dataset = open_dataset(tmp_path / "out")
    plain = Tokenizer.from_str(bpe.to_json())
    end = dataset.train.document_starts[1]
    assert dataset.train.tokens[:end].tolist() == plain.encode(long).ids
    assert dataset.train.document_bytes[0] == len(long.encode("utf-8"))
    assert info.train.documents == 1 + separated
    words = len(long.split()) + long.count("\n") + (2 if separated else 0)
    assert info.train.words == words


def test_a_bpe_is_trained_on_an_even_sample_of_a_large_text(tmp_path):
    words = ["early", "later", "final"]
    text = "|".join(f"{words[3 * i // 3000]} number {i}" for i in range(3000))
    progress = Recorder()
    prepare_text(tmp_path, text, vocab_size=400, tokenizer_bytes=4000)
    vocabulary = Tokenizer.from_str(open_dataset(tmp_path / "out").tokenizer_json).get_vocab()
    assert {"early", "later", "final"} <= vocabulary.keys()
    run(tmp_path / "again", BAR, input=tmp_path / "a.txt", tokenizer_bytes=4000, progress=progress)
    ((read, total, _),) = [c for label, c in progress.done.items() if "tokenizer" in label]
    assert total == 4000
    assert 3900 <= read <= 4000 + len("early number 1000")
    message = next(line for line in progress.messages if "training a tokenizer" in line)
    assert "4,000 of" in message


@pytest.mark.slow
def test_one_line_of_200_megabytes(tmp_path):
    """Nothing of it is lost, and it is never in memory as a whole."""
    words = " ".join(f"word{i % 5000} of {i % 77}" for i in range(100_000))
    path = tmp_path / "a.txt"
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < 200_000_000:
            file.write(words)
        file.write("".join(f"|short text {i}" for i in range(50)))
    command = [sys.executable, "-m", "newllm_cli", "prepare", "--source", "text-file", "--json"]
    command += ["--input", path, "--document-separator", "|", "--out", tmp_path / "out"]
    command += ["--val-fraction", "0", "--val-token-policy", "keep"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1_000_000  # KiB
    dataset = open_dataset(tmp_path / "out")
    assert dataset.train.num_bytes + dataset.validation.num_bytes == path.stat().st_size - 50
    assert dataset.train.num_bytes > 200_000_000
