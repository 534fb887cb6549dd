"""What rows say, and that it is the same in every container."""

import csv

import pyarrow
import pytest
from pyarrow import parquet

from newllm_core.data.sources.base import Broken, Document, Message
from newllm_core.data.sources.rows import Rows
from newllm_core.errors import InputError

from .cases import Recorder, assert_one_line_error, found, run, write
from .containers import CONTAINERS, hub_library, write_rows

ODD = ['quoted "x", y', "CR\r\nLF\n\nend", "é\u2028𝄞\0", "\ufeffmark", " null", "NaN", "1.50"]
TEXTS = [{"id": f"{i}", "text": f"row {i} {ODD[i % len(ODD)]}"} for i in range(150)]
CHATS = [
    {"messages": [{"role": "user", "content": row["text"]}, {"role": "bot", "content": "yes"}]}
    for row in TEXTS
]


@pytest.mark.parametrize("rows", [TEXTS, CHATS], ids=["texts", "chats"])
def test_equal_rows_give_equal_documents_in_every_container(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("newllm_core.data.sources.json_rows.CHUNK_CHARACTERS", 50)
    expected = [
        Document(text=row["text"])
        if rows is TEXTS
        else Document(
            messages=(Message("user", row["messages"][0]["content"]), Message("assistant", "yes"))
        )
        for row in rows
    ]
    for name in CONTAINERS + ["a.csv"] * (rows is TEXTS):
        assert found(write_rows(tmp_path / name, rows)) == expected, name


def test_equal_rows_give_one_data_set(tmp_path):
    hashes = set()
    for name in ("a.jsonl", "a.json", "a.parquet", "saved", "a.jsonl.zst", "a.csv"):
        path = write_rows(tmp_path / name, TEXTS)
        hashes.add(run(tmp_path / f"out-{name}", source="rows", input=path).hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "saved"])
def test_one_odd_value_changes_no_other_row(tmp_path, name):
    """`datasets` 5 makes JSON of a column whose values are of several types."""
    content = [{"type": "text", "text": "x"}, {"type": "image", "url": "y"}]
    odd = {"messages": [{"role": "user", "content": content}]}
    plain = {"messages": [{"role": "user", "content": "line\n"}]}
    write_rows(tmp_path / "in.jsonl", [plain, odd, plain])
    if name in ("a.parquet", "saved"):
        mixed = hub_library().Dataset.from_json(
            str(tmp_path / "in.jsonl"), cache_dir=str(tmp_path / "c")
        )
        (mixed.to_parquet if name == "a.parquet" else mixed.save_to_disk)(str(tmp_path / name))
    else:
        write_rows(tmp_path / name, [plain, odd, plain])
    texts = [document.messages[0].content for document in found(tmp_path / name)]
    assert texts == ["line\n", "x", "line\n"]


USER, ASSISTANT = Message("user", "q"), Message("assistant", "a")


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, None),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "model", "content": "a"}]}, None),
        ({"instruction": "q", "output": "a", "text": "### q"}, None),
        ({"instruction": "q", "input": "", "output": "a"}, None),
        ({"instruction": "q", "input": "i", "output": "a"}, (Message("user", "q\n\ni"), ASSISTANT)),
        (
            {"messages": [{"role": "tool", "content": "{}"}, {"role": "system", "content": ""}]},
            (Message("tool", "{}"), Message("system", "")),
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
            (Message("assistant", ""),),
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, (Message("user", ""),)),
        ({"messages": None, "conversations": [{"role": "user", "content": "q"}]}, (USER,)),
    ],
)
def test_spellings_of_chats(tmp_path, row, messages):
    expected = messages or (USER, ASSISTANT)
    assert found(write_rows(tmp_path / "a.jsonl", [row])) == [Document(messages=expected)]


def test_what_is_left_out_or_renamed_is_said_once_and_counted(tmp_path):
    image = {"role": "human", "content": [{"type": "image"}, {"type": "text", "text": "see"}]}
    call = {"role": "assistant", "content": None, "function_call": {"name": "f"}}
    rows = [{"messages": [image, call, {"role": "user", "content": f"{n}"}]} for n in range(5)]
    path = write_rows(tmp_path / "a.jsonl", [*rows, {"messages": []}, {"messages": []}])
    progress = Recorder()
    info = run(tmp_path / "out", source="rows", input=path, keep=True, progress=progress)
    said = [line.partition("): ")[2] for line in progress.messages if line.startswith("source")]
    assert said == [
        "parts of messages that are no text are left out (5 times)",
        "the role 'human' is read as 'user' (5 times)",
        "tool calls are left out of chats (5 times)",
        "left out 2 documents without any text",
    ]
    assert (info.blank, info.broken) == (2, 0)


@pytest.mark.parametrize(
    "row",
    [
        {"text": 3},
        {"text": None},
        {"text": ["x"]},
        {"text": "half \ud800"},
        {"title": "x"},
        {"messages": {"role": "user", "content": "x"}},
        {"messages": ["x"]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        {"messages": [{"role": 1, "content": "x"}]},
        {"instruction": "x", "output": None},
        ["text"],
        "text",
        None,
    ],
)
def test_a_value_of_another_type_breaks_its_row_alone(tmp_path, row):
    good = {"text": "good"}
    for name in ("a.jsonl", "a.json"):
        first, broken, last = found(write_rows(tmp_path / name, [good, row, good]))
        assert first == last == Document(text="good")
        assert isinstance(broken, Broken)
        assert f"{tmp_path / name}: " in broken.problem
        assert " 2 " in broken.problem


def test_fields_that_nobody_reads_may_hold_anything(tmp_path):
    fields = ["NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', '"a\tb"', "[" * 500 + "]" * 500]
    text = "".join(f'{{"hash": {field}, "text": "t{i}"}}\n' for i, field in enumerate(fields))
    data = text.encode() + b'{"hash": "\xff", "text": "latin"}\n{"text": "a", "text": "b"}\n'
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "a.json").write_bytes(data)
    expected = [*(f"t{i}" for i in range(len(fields))), "latin", "b"]
    for name in ("a.jsonl", "a.json"):
        assert [document.text for document in found(tmp_path / name)] == expected


def test_parquet_values_that_python_cannot_hold(tmp_path):
    bad = pyarrow.array([b"good", b"\xff", b"good"], pyarrow.binary()).view(pyarrow.string())
    years = pyarrow.array([0, 1 << 50, 2], pyarrow.timestamp("s"))
    table = pyarrow.table({"text": bad, "when": years})
    parquet.write_table(table, tmp_path / "a.parquet")
    first, broken, last = found(tmp_path / "a.parquet")
    assert first == last == Document(text="good")
    assert "row 2" in broken.problem


def test_lines_that_are_damaged_are_broken(tmp_path):
    good = b'{"text": "x"}'
    damaged = [b'{"text": ', b"\xff\xfe", b'{"text": "\xff"}', b"[" * 100_000, b"NaN"]
    (tmp_path / "a.jsonl").write_bytes(
        b"\n".join([b"\xef\xbb\xbf" + good + b"\r", b"", *damaged, good])
    )
    first, *problems, last = (
        getattr(document, "problem", document) for document in found(tmp_path / "a.jsonl")
    )
    assert first == last == Document(text="x")
    for problem, words in zip(
        problems,
        [
            "line 3 is not JSON",
            "line 4 is not JSON",
            "source.encoding",
            "line 6 is not JSON: it is nested too deeply",
            "line 7 holds a number, expected an object",
        ],
        strict=True,
    ):
        assert words in problem


@pytest.mark.parametrize(
    "data",
    [
        b'[{"text": "a"}',
        b'[{"text": "a"},, {"text": "b"}]',
        b'[{"text": "a"} {}]',
        b'[{"text": "a',
        b'{"data": [{"text": "a"}]',
        b'{"data": [{"text": "a"}], "id": }',
        b'{"rows": [{"text": "a"}], "text": "b"}{"text": "c"}',
    ],
)
def test_damaged_arrays_are_refused_with_the_place(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with assert_one_line_error(InputError, tmp_path / "a.json", "at character", ".jsonl"):
        found(tmp_path / "a.json")


def test_the_only_column_of_texts_is_guessed_and_said(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"id": 1, "body": "x"}, {"id": 2, "body": "y"}])
    note, *documents = Rows(str(path)).documents()
    assert "'body'" in note.text
    assert documents == [Document(text="x"), Document(text="y")]
    two = write_rows(tmp_path / "b.jsonl", [{"title": "t", "body": "x"}])
    (broken,) = found(two)
    assert "source.text" in broken.problem
    assert "title, body" in broken.problem
    assert found(two, text="body") == [Document(text="x")]
    late = write_rows(tmp_path / "c.jsonl", [{"prompt": "p"}, {"text": "x"}])
    assert [type(document) for document in found(late)] == [Broken, Document]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_cells_are_texts_as_they_are(tmp_path, mark):
    rows = [["id", "text"], ["1", "NA"], ["2", f'a {mark} "b"\nc'], ["3", "x" * 200_000], ["4", ""]]
    with (tmp_path / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=mark).writerows(rows)
    assert [document.text for document in found(tmp_path / "a.csv")] == [row[1] for row in rows[1:]]


def test_damaged_csv(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text\n1,a\n2\n3,"b"c\n\n4,d\n')
    documents = found(path)
    assert [getattr(document, "text", None) for document in documents] == ["a", None, None, "d"]
    assert "line 3 has 1 cells, the header 2" in documents[1].problem
    assert "line 4" in documents[2].problem
    path.write_text('id,text\n1,"a\n2,b\n', encoding="utf-8")
    with assert_one_line_error(InputError, path, "line 2"):
        found(path)
    path.write_text("text,text\n1,2\n", encoding="utf-8")
    with assert_one_line_error(InputError, path, "two columns"):
        found(path)
    path.write_text("text,n,,\n1,2,,\n", encoding="utf-8")
    assert [document.text for document in found(path)] == ["1"]
