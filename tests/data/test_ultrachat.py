import json

import pytest

from newllm_core.data.sources.base import Broken, Document, Message
from newllm_core.data.sources.ultrachat import UltraChat, chats
from newllm_core.errors import InputError

from .cases import assert_one_line_error

CHATS = [
    [{"role": "user", "content": "Hé?\nTwo lines"}, {"role": "assistant", "content": "Yes."}],
    [{"content": "", "role": "system"}, {"content": "x", "role": "user"}],
]
EXPECTED = [
    Document(messages=(Message("user", "Hé?\nTwo lines"), Message("assistant", "Yes."))),
    Document(messages=(Message("system", ""), Message("user", "x"))),
]


def write(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    joined = "\n".join(lines) if path.suffix == ".jsonl" else "[" + ",".join(lines) + "]"
    path.write_text(joined, encoding="utf-8")
    return path


def found(path):
    return list(UltraChat(str(path)).documents())


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", ".hidden/a[1]*.jsonl"])
def test_json_files(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    rows = [{"prompt": "p", "messages": messages} for messages in CHATS]
    assert found(write(path, rows)) == EXPECTED


def test_parquet_files(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"messages": CHATS}), path)
    assert found(path) == EXPECTED


def test_reading_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(cache))
    path = write(tmp_path / "a.jsonl", [{"messages": CHATS[0]}])
    assert found(path) == EXPECTED[:1]
    assert not cache.exists()


def test_rows_of_the_hub_keep_their_split():
    rows = iter([{"messages": CHATS[0]}])
    (document,) = chats(rows, "hub", "validation")
    assert document.split == "validation"


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": "x"}, ("row 1", "'messages'", "it has text")),
        ({"messages": "x"}, ("row 1", "'messages'")),
        ({"messages": ["x"]}, ("row 1", "'role'")),
        ({"messages": [{"content": "x"}]}, ("row 1", "'role'")),
        ({"messages": [{"role": "user"}]}, ("row 1", "'content'")),
        ({"messages": [{"role": "user", "content": None}]}, ("row 1", "'content'")),
        ({"messages": [{"role": "", "content": "x"}]}, ("row 1", "'role' is empty")),
        (["messages"], ("line 1", "list")),
    ],
)
def test_rows_that_are_no_chats_are_broken(tmp_path, row, parts):
    path = write(tmp_path / "a.jsonl", [row, {"messages": CHATS[0]}])
    broken, good = found(path)
    assert isinstance(broken, Broken)
    assert all(str(part) in broken.problem for part in (path, *parts))
    assert good == EXPECTED[0]


def test_lines_that_are_damaged_are_broken(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": CHATS[0]}).encode()
    lines = [
        b"\xef\xbb\xbf" + good + b"\r",
        b'{"messages": [',
        b"\xff\xfe",
        b"",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000,
        b'{"messages": [], "id": 1' + b"0" * 400 + b"}",
        b"NaN",
        good,
    ]
    path.write_bytes(b"\n".join(lines))
    documents = found(path)
    problems = [broken.problem for broken in documents[1:-1]]
    assert documents[0] == documents[-1] == EXPECTED[0]
    for problem, words in zip(
        problems,
        [
            "line 2 is not JSON",
            "line 3 is not JSON",
            "half a surrogate pair in 'content'",
            "line 6 is not JSON: it is nested too deeply",
            "line 7 is not JSON: the number 1000",
            "line 8 is not JSON: NaN is no JSON number",
        ],
        strict=True,
    ):
        assert words in problem


def test_inputs_that_cannot_be_read(tmp_path):
    with assert_one_line_error(InputError, tmp_path / "none.jsonl", "No such file"):
        found(tmp_path / "none.jsonl")
    with assert_one_line_error(InputError, tmp_path, "is a folder"):
        found(tmp_path)
    (tmp_path / "a.csv").write_text("x", encoding="utf-8")
    with assert_one_line_error(InputError, tmp_path / "a.csv", ".csv", ".parquet"):
        found(tmp_path / "a.csv")
    (tmp_path / "c.json").write_bytes(b"[")
    with assert_one_line_error(InputError, tmp_path / "c.json"):
        found(tmp_path / "c.json")


def test_offline_hub_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with assert_one_line_error(InputError, "HuggingFaceH4/ultrachat_200k", "--input"):
        list(UltraChat().documents())


def test_real_chats(shared_data):
    documents = found(shared_data / "ultrachat" / "ultrachat_800.jsonl")
    assert len(documents) == 800
    assert sum(len(document.messages) for document in documents) == 3970
    assert {m.role for document in documents for m in document.messages} == {"user", "assistant"}
