import json
import os
import subprocess
import sys

import numpy as np

from newllm_core.config import Config, DataConfig
from newllm_core.data.prepare import prepare
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.base import Document
from newllm_core.data.sources.text_file import TextFile
from newllm_core.errors import ConfigError, InputError, PluginError

from .cases import (
    BAR,
    BLANK,
    Recorder,
    assert_one_line_error,
    contents_of,
    documents_of,
    run,
    spelled_out,
    write,
)


def test_everything_is_in_the_folder_and_comes_back(tmp_path, corpus):
    info = run(tmp_path / "out", BLANK, input=corpus, keep=True, val_fraction=0)
    assert sorted(contents_of(tmp_path / "out")) == [
        "dataset.json",
        "tokenizer.json",
        "train.bytes.npy",
        "train.documents.npy",
        "train.tokens",
        "validation.bytes.npy",
        "validation.documents.npy",
        "validation.tokens",
    ]
    dataset = open_dataset(tmp_path / "out")
    train, validation = documents_of(tmp_path / "out", spelled_out)
    assert len(train) == info.train.documents == 19
    assert len(validation) == info.validation.documents == 1
    pieces = corpus.read_text(encoding="utf-8").split("\n\n")
    expected = [piece + "<|endoftext|>" for piece in pieces]
    assert sorted(train + validation) == sorted(expected)
    assert [text for text in expected if text in train] == train
    assert dataset.train.document_bytes.tolist() == [
        len(text.removesuffix("<|endoftext|>").encode("utf-8")) for text in train
    ]
    assert info.train.words + info.validation.words == sum(
        len(piece.split()) + piece.count("\n") for piece in pieces
    )
    assert dataset.hash == info.hash
    assert dataset.info == info
    assert info.source.options == {"document_separator": r"\n\n", "encoding": "utf-8"}
    assert info.source.distribution == "newllm"


def test_same_input_and_options_give_the_same_bytes_in_any_process(tmp_path, corpus):
    options = {"source": "text-file", "input": str(corpus), "vocab_size": 300}
    first = run(tmp_path / "a", BLANK, **options)
    run(tmp_path / "b", BLANK, **options)
    code = (
        "import json, sys; from pathlib import Path;"
        "from newllm_core.data.prepare import prepare; from newllm_core.settings import resolve;"
        "out, options, source = sys.argv[1:];"
        "prepare(resolve({'data': json.loads(options), 'source': json.loads(source)}), Path(out))"
    )
    command = [sys.executable, "-c", code, tmp_path / "c", json.dumps(options), json.dumps(BLANK)]
    environment = {**os.environ, "PYTHONHASHSEED": "11", "RAYON_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "b") == contents_of(tmp_path / "c")
    moved = corpus.rename(tmp_path / "elsewhere.txt")
    options["input"] = str(moved)
    assert run(tmp_path / "d", BLANK, **options).hash == first.hash
    assert run(tmp_path / "e", BLANK, seed=1, **options).hash != first.hash


def test_duplicates_are_never_on_both_sides(tmp_path):
    path = write(tmp_path / "a.txt", "|".join(["ab ba", "abba", "ab ba", "baab", "ab ba"]))
    for seed in range(6):
        run(tmp_path / f"{seed}", BAR, seed=seed, input=path, keep=True)
        train, validation = documents_of(tmp_path / f"{seed}")
        assert len(train) + len(validation) == 5
        assert not set(train) & set(validation)


def test_policy_and_duplicates_of_a_separate_validation_file(tmp_path, byte_tokenizer):
    train = write(tmp_path / "train.txt", "ab\nba\n|aa\n")
    val = write(tmp_path / "val.txt", "aa\n|ab\nx\nb\n|aa\ny\n|é\n|bb")
    progress = Recorder()
    inputs = {"input": train, "val_input": val, "tokenizer": byte_tokenizer}
    info = run(tmp_path / "out", BAR, progress=progress, **inputs)
    _, validation = documents_of(tmp_path / "out", spelled_out)
    # "aa\n" is in train; "aa\ny\n" would become it; "é\n" has no line left.
    assert validation == ["ab\nb\n<|endoftext|>", "bb<|endoftext|>"]
    assert info.duplicates_dropped == 2
    report = info.policy
    assert (report.lines, report.dropped_lines) == (3 + 2 + 1 + 1, 3)
    assert (report.bytes, report.dropped_bytes) == (7 + 5 + 3 + 2, 2 + 2 + 3)
    assert (report.unseen_types, report.dropped_documents) == (4, 1)
    assert (info.validation.bytes, info.validation.tokens) == (5 + 2, 5 + 2 + 2)
    assert any("42.86% of validation lines" in warning for warning in progress.warnings)
    assert any("2 held-out documents" in message for message in progress.messages)
    written = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert written["policy"]["dropped_line_share"] == 3 / 7
    assert written["splits"]["validation"]["documents"] == 2


def test_keep_keeps_and_warns(tmp_path, byte_tokenizer):
    train, val = write(tmp_path / "a.txt", "ab\n"), write(tmp_path / "b.txt", "ab\nx\n")
    progress = Recorder()
    inputs = {"input": train, "val_input": val, "tokenizer": byte_tokenizer}
    info = run(tmp_path / "out", keep=True, progress=progress, **inputs)
    assert (info.validation.bytes, info.policy.unseen_types) == (5, 1)
    assert any("1 token types" in warning for warning in progress.warnings)


def test_nothing_left_is_an_error_and_leaves_nothing(tmp_path, byte_tokenizer):
    train, val = write(tmp_path / "a.txt", "ab\n"), write(tmp_path / "b.txt", "x\n")
    with assert_one_line_error(InputError, val, "--val-token-policy keep"):
        run(tmp_path / "out", input=train, val_input=val, tokenizer=byte_tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_test_split_is_written_whole_and_opened(tmp_path, byte_tokenizer):
    folder = tmp_path / "wiki"
    for name, text in (("train", "ab\nba\n"), ("valid", "aba\nx\n"), ("test", "bb\nx\n")):
        write(folder / f"{name}.txt", text)
    info = run(tmp_path / "out", source="wikitext", input=folder, tokenizer=byte_tokenizer)
    dataset = open_dataset(tmp_path / "out")
    # The policy drops a line of validation; a test split is what others report on.
    _, *held_out = documents_of(tmp_path / "out", spelled_out)
    assert held_out == [["aba\n<|endoftext|>"], ["bb\nx\n<|endoftext|>"]]
    assert info.policy.dropped_lines == 1
    assert list(info.splits) == list(info.to_dict()["splits"]) == ["train", "validation", "test"]
    assert (dataset.info.splits["test"].bytes, dataset.test.num_bytes) == (5, 5)
    (tmp_path / "out" / "test.tokens").unlink()
    with assert_one_line_error(InputError, "test.tokens is missing"):
        open_dataset(tmp_path / "out")


def test_the_tokenizer_never_sees_the_test_split(tmp_path, corpus):
    info = run(tmp_path / "with", BLANK, test_fraction=0.2, input=corpus, keep=True)
    train, validation, test = documents_of(tmp_path / "with")
    texts = [*train, *validation, *test]
    assert len(texts) == len(set(texts)) == 20
    assert info.splits["test"].documents >= 4
    run(tmp_path / "without", BLANK, input=corpus, keep=True)
    plain = open_dataset(tmp_path / "without")
    assert plain.test is None
    assert list(plain.info.splits) == ["train", "validation"]
    with assert_one_line_error(InputError, "no split 'test'", "--test-fraction"):
        plain.split("test")
    assert documents_of(tmp_path / "without")[1] == validation
    progress = Recorder()
    run(tmp_path / "3", BLANK, test_fraction=0.2, progress=progress, input=corpus, keep=True)
    done = {label: counts[0] for label, counts in progress.done.items()}
    assert done["training the tokenizer"] == done["encoding train"] == info.train.bytes


def test_a_separate_source_of_the_same_name_shares_its_options(tmp_path):
    train, val = write(tmp_path / "a.txt", "ab|ba|aa"), write(tmp_path / "b.txt", "bb|abab")
    common = {"input": train, "keep": True}
    assert run(tmp_path / "1", BAR, val_input=val, **common).validation.documents == 2
    folder = write(tmp_path / "folder" / "b.txt", "bb|abab").parent
    info = run(tmp_path / "2", BAR, val_source="text-dir", val_input=folder, **common)
    assert info.validation.documents == 1
    options = {"document_separator": None, "encoding": "utf-8", "pattern": "*.txt"}
    assert info.val_source.options == options


def test_reading_stops_at_max_documents(tmp_path, monkeypatch):
    yielded = []

    def documents(self):
        for number in range(100):
            yielded.append(number)
            yield Document(text=f"text {number}")

    monkeypatch.setattr(TextFile, "documents", documents)
    info = run(tmp_path / "out", input="x", max_documents=5, keep=True)
    assert info.train.documents + info.validation.documents == 5
    assert yielded == [0, 1, 2, 3, 4]


def test_each_source_is_read_once(tmp_path, monkeypatch, corpus):
    read = []
    original = TextFile.documents
    monkeypatch.setattr(TextFile, "documents", lambda self: read.append(1) or original(self))
    run(tmp_path / "out", BLANK, input=corpus)
    assert read == [1]


def test_a_source_that_breaks_its_contract_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(TextFile, "documents", lambda self: iter([None]))
    with assert_one_line_error(PluginError, "source text-file (x)", "it yielded NoneType"):
        run(tmp_path / "out", input="x")
    assert not list(tmp_path.iterdir())


def test_unknown_sources_and_options(tmp_path):
    with assert_one_line_error(ConfigError, "text-fil", "did you mean 'text-file'"):
        run(tmp_path / "out", source="text-fil")
    with assert_one_line_error(ConfigError, "source.pattern"):
        run(tmp_path / "out", {"pattern": "*"})
    assert not list(tmp_path.iterdir())


def test_a_document_much_longer_than_a_batch(tmp_path):
    lines = "".join(f"line {i} of a long text.\n" for i in range(60_000))
    path = write(tmp_path / "long.txt", lines + "|short line 1 of a text.\n")
    info = run(tmp_path / "out", BAR, input=path, keep=True)
    assert [lines + "<|endoftext|>"] in documents_of(tmp_path / "out", spelled_out)
    assert info.train.bytes + info.validation.bytes == len(lines) + 24


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys; import newllm_core.data.prepare, newllm_core.data.prepared;"
        "from newllm_core.plugins.registry import DATA_SOURCES as s;"
        "[s.load(n) for n in s.plugins()];"
        "print({'numpy','torch','datasets','tokenizers','pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "set()"


def test_default_options_work_with_nothing_else(tmp_path):
    info = prepare(Config(data=DataConfig(max_documents=90)), tmp_path / "out")
    assert info.train.tokens > 50_000
    assert info.vocab_size == 8192
    tokens = open_dataset(tmp_path / "out").train.tokens
    assert np.unique(tokens).max() < 8192


def test_one_large_document_that_is_held_out_is_warned_of(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abc":
        write(folder / f"{name}.txt", f"{name} small text\n" * 3)
    write(folder / "large.txt", "a large text\n" * 2000)
    said = []
    for seed in range(6):
        progress = Recorder()
        out = tmp_path / f"out{seed}"
        info = run(out, source="text-dir", input=folder, seed=seed, progress=progress, keep=True)
        is_large = info.validation.bytes > info.train.bytes
        said.append(is_large)
        warned = [text for text in progress.warnings if "of the text is validation" in text]
        assert len(warned) == is_large
    assert any(said)


def test_a_long_last_line_is_not_held_out_whole(tmp_path):
    path = write(tmp_path / "a.txt", "# Title\n" + "some words " * 20_000)
    info = run(tmp_path / "out", input=path, val_fraction=0.05, keep=True)
    size = info.validation.bytes + info.train.bytes
    assert 0.04 < info.validation.bytes / size < 0.13
