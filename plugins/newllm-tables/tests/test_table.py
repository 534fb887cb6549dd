"""Every format, both kinds of column, and what goes wrong."""

import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from newllm_tables.table import FORMATS, Table, TableOptions

from newllm_core.errors import ConfigError, InputError
from newllm_core.settings import make_section
from newllm_core.testing import check_data_source

TEXTS = ['one, "two"\nthree é', "NA", "1.50"]
CHATS = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
    [{"role": "user", "content": "bye"}],
]


def write(folder, suffix, rows):
    """`rows` in the format of `suffix`."""
    path = folder / f"table{suffix}"
    table = pa.Table.from_pylist(rows)
    if suffix in (".csv", ".tsv"):
        tab = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
        pa.csv.write_csv(table, path, tab)
    elif suffix == ".parquet":
        pa.parquet.write_table(table, path)
    elif suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def read(path, **options):
    return list(Table(str(path), make_section(TableOptions, "source", options)).documents())


def chats(documents):
    return [
        [{"role": turn.role, "content": turn.content} for turn in document.messages]
        for document in documents
    ]


@pytest.fixture(params=FORMATS)
def suffix(request):
    return request.param


def test_contract(tmp_path, suffix):
    check_data_source(Table, write(tmp_path, suffix, [{"text": text} for text in TEXTS]))


def test_texts_come_back_as_they_were(tmp_path, suffix):
    path = write(tmp_path, suffix, [{"id": str(n), "body": t} for n, t in enumerate(TEXTS)])
    assert [document.text for document in read(path, text_column="body")] == TEXTS


def test_chats(tmp_path, suffix):
    nested = suffix not in (".csv", ".tsv")
    rows = [{"chat": chat if nested else json.dumps(chat)} for chat in CHATS]
    path = write(tmp_path, suffix, rows)
    assert chats(read(path, chat_column="chat")) == CHATS


def test_arrow_files_are_read_like_arrow_streams(tmp_path):
    path = tmp_path / "table.arrow"
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    assert [document.text for document in read(path)] == TEXTS


def test_other_keys_of_a_turn(tmp_path):
    path = write(tmp_path, ".jsonl", [{"conversation": [{"from": "human", "value": "hi"}]}])
    given = {"chat_column": "conversation", "role_key": "from", "content_key": "value"}
    assert chats(read(path, **given)) == [[{"role": "human", "content": "hi"}]]


def test_empty_cells_are_no_documents(tmp_path):
    path = write(tmp_path, ".jsonl", [{"text": "a"}, {"text": ""}, {"text": None}, {"text": "b"}])
    assert [document.text for document in read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{"body": "x"}], {}, ["no column 'text'", "body", "source.text_column"]),
        ([{"body": "x"}], {"chat_column": "chat"}, ["no column 'chat'", "source.chat_column"]),
        ([{"text": 3}], {}, ["row 1", "a number, expected text"]),
        ([{"chat": "no json"}], {"chat_column": "chat"}, ["row 1", "is not JSON"]),
        ([{"chat": {"role": "x"}}], {"chat_column": "chat"}, ["expected a list of turns"]),
        ([{"chat": [{"role": "x"}]}], {"chat_column": "chat"}, ["'role' and 'content'"]),
        ([{"chat": ["hello"]}], {"chat_column": "chat"}, ["'role' and 'content'"]),
    ],
)
def test_rows_that_do_not_fit(tmp_path, rows, options, words):
    path = write(tmp_path, ".jsonl", rows)
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert all(word in str(caught.value) for word in [str(path), *words])
    assert "\n" not in str(caught.value)


def test_another_format(tmp_path):
    path = tmp_path / "table.xlsx"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"'\.xlsx': give a file that ends in \.csv"):
        read(path)


def test_two_columns_are_one_too_many():
    with pytest.raises(ConfigError, match="choose one"):
        make_section(TableOptions, "source", {"text_column": "a", "chat_column": "b"})
