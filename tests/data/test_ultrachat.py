import pytest

from newllm_core.data.sources import ultrachat
from newllm_core.data.sources.base import Broken, Document, Message
from newllm_core.data.sources.ultrachat import UltraChat

from .cases import read
from .containers import write_rows

CHATS = [
    [{"role": "user", "content": "Hé?\nTwo lines"}, {"role": "assistant", "content": "Yes."}],
    [{"content": "", "role": "system"}, {"content": "x", "role": "user"}],
]
EXPECTED = [
    Document(messages=(Message("user", "Hé?\nTwo lines"), Message("assistant", "Yes."))),
    Document(messages=(Message("system", ""), Message("user", "x"))),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", ".hidden/a[1]*.jsonl"])
def test_files(tmp_path, name):
    path = tmp_path / name
    rows = [{"prompt": "p", "messages": messages} for messages in CHATS]
    assert read(UltraChat, write_rows(path, rows)) == EXPECTED


def test_reading_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(cache))
    path = write_rows(tmp_path / "a.jsonl", [{"messages": CHATS[0]}])
    assert read(UltraChat, path) == EXPECTED[:1]
    assert not cache.exists()


def test_rows_of_the_hub_keep_their_split(tmp_path, monkeypatch):
    """A folder laid out like the hub's; `train_gen` is another kind of rows."""
    for split in ("train_sft", "test_sft", "train_gen"):
        write_rows(tmp_path / f"{split}.jsonl", [{"messages": CHATS[0]}])
    files = "".join(
        f"\n  - split: {split}\n    path: {split}.jsonl"
        for split in ("train_sft", "test_sft", "train_gen")
    )
    card = f"---\nconfigs:\n- config_name: default\n  data_files:{files}\n---\n"
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    monkeypatch.setattr(ultrachat, "REPOSITORY", str(tmp_path))
    assert [document.split for document in UltraChat().documents()] == ["validation", "train"]


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": "x"}, ("row 1", "no list 'messages'", "it has text")),
        ({"messages": "x"}, ("row 1", "no list 'messages': it is text")),
        ({"messages": ["x"]}, ("row 1", "'role'")),
        ({"messages": [{"content": "x"}]}, ("row 1", "'role'")),
        ({"messages": [{"role": "user"}]}, ("row 1", "'content'")),
        ({"messages": [{"role": "user", "content": None}]}, ("row 1", "'content'")),
        ({"messages": [{"role": "", "content": "x"}]}, ("row 1", "'role' is empty")),
        ({"messages": [[]]}, ("row 1", "a message that is a list")),
        (["messages"], ("line 1", "holds a list")),
    ],
)
def test_rows_that_are_no_chats_are_broken(tmp_path, row, parts):
    path = write_rows(tmp_path / "a.jsonl", [row, {"messages": CHATS[0]}])
    broken, good = read(UltraChat, path)
    assert isinstance(broken, Broken)
    assert all(str(part) in broken.problem for part in (path, *parts))
    assert good == EXPECTED[0]


def test_real_chats(shared_data):
    documents = read(UltraChat, shared_data / "ultrachat" / "ultrachat_800.jsonl")
    assert len(documents) == 800
    assert sum(len(document.messages) for document in documents) == 3970
    assert {m.role for document in documents for m in document.messages} == {"user", "assistant"}
