"""Which files rows are read from, and which split each of them is."""

import gzip

import pytest

from newllm_core.data.sources.base import Document
from newllm_core.data.sources.row_files import split_named
from newllm_core.data.sources.rows import Rows
from newllm_core.data.sources.ultrachat import UltraChat
from newllm_core.data.sources.wikitext import WikiText
from newllm_core.errors import InputError

from .cases import assert_one_line_error, found
from .containers import hub_library, write_rows


def test_folders_are_read_in_order_and_divided_by_names(tmp_path):
    write_rows(tmp_path / "inner" / "train-00000.jsonl", [{"text": "b"}])
    write_rows(tmp_path / "train.jsonl", [{"text": "c"}])
    write_rows(tmp_path / "a_valid.csv", [{"text": "v"}])
    (tmp_path / ".hidden.json").write_text("{")
    (tmp_path / "dataset_info.json").write_text("{}")
    documents = found(tmp_path)
    assert [(d.text, d.split) for d in documents] == [
        ("v", "validation"),
        ("b", "train"),
        ("c", "train"),
    ]
    (tmp_path / "a_valid.csv").unlink()
    assert {document.split for document in found(tmp_path)} == {None}


def test_saved_splits_and_folders_laid_out_like_the_hub(tmp_path):
    datasets = hub_library()
    of = {n: datasets.Dataset.from_list([{"text": n}]) for n in ("train", "validation", "odd")}
    datasets.DatasetDict(of).save_to_disk(str(tmp_path / "saved"))
    expected = [Document(text=name, split=name) for name in ("validation", "train")]
    assert found(tmp_path / "saved") == expected
    for name in of:
        write_rows(tmp_path / "hub" / f"{name}.jsonl", [{"text": name}])
    assert found(f"hub:{tmp_path / 'hub'}") == expected


def test_a_url_is_read_like_a_file():
    import fsspec

    from newllm_core.data.sources.row_readers import read_rows

    with fsspec.open("memory://a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"text": "x"}'))
    assert list(read_rows("memory://a.jsonl.gz")) == [{"text": "x"}]
    with assert_one_line_error(InputError, "memory://b.jsonl"):
        list(read_rows("memory://b.jsonl"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Rows("hub:someone/something:config"), "someone/something"),
        (UltraChat(), "HuggingFaceH4/ultrachat_200k"),
        (WikiText(), "Salesforce/wikitext"),
    ],
)
def test_offline_hub_says_what_to_do(monkeypatch, source, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with assert_one_line_error(InputError, name, "--input"):
        list(source.documents())


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[" * 100_000,
        "{}",
        '{"_data_files": 1}',
        '{"_data_files": [1]}',
        '{"_data_files": [[]]}',
        '{"_data_files": [{}]}',
        '{"_data_files": [{"filename": 1}]}',
        '{"_data_files": [{"filename": "../a.arrow"}]}',
    ],
)
def test_lists_of_files_that_are_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    with assert_one_line_error(InputError, tmp_path / "state.json", "save_to_disk"):
        list(Rows(str(tmp_path)).documents())


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000.jsonl", "train"),
        ("eval.jsonl", "test"),
        ("training_data/test.jsonl", "test"),
        ("eval/train.jsonl", "train"),
        ("train/test.jsonl", None),
        ("latest.jsonl", None),
    ],
)
def test_a_word_of_a_name_says_the_split(name, split):
    assert split_named(name) == split
