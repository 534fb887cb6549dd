"""The `ultrachat` source: chats with `messages: [{role, content}]`, from the hub or a file."""

from collections.abc import Iterable, Iterator
from typing import Any

from newllm_core.data.sources.base import Broken, DataSource, Document, Message, Split
from newllm_core.data.sources.files import input_file
from newllm_core.data.sources.rows import Row, hub_rows, local_rows

REPOSITORY = "HuggingFaceH4/ultrachat_200k"
HUB_SPLITS: dict[str, Split] = {"train_sft": "train", "test_sft": "validation"}


class UltraChat(DataSource):
    """One document per chat; the hub's data comes divided, a file's does not.

    Rows that are no chats are broken documents.
    """

    def documents(self) -> Iterator[Document | Broken]:
        """Yield the chats in their order; on the hub, training ones first.

        Raises:
            InputError: no such file, one of another format, or the hub is out of reach.
        """
        if self.input is None:
            for name, split in HUB_SPLITS.items():
                rows = hub_rows(REPOSITORY, name)
                yield from chats(rows, f"{REPOSITORY} {name}", split)
        else:
            path = input_file("ultrachat", self.input, "a .jsonl, .json or .parquet file of chats")
            yield from chats(local_rows(path), str(path), None)


def chats(
    rows: Iterable[Row | Broken], where: str, split: Split | None
) -> Iterator[Document | Broken]:
    """Turn rows into documents; `where` names their origin for errors."""
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Broken):
            yield row
            continue
        messages = row.get("messages")
        if not isinstance(messages, list):
            has = ", ".join(row) or "nothing"
            yield Broken(f"{where}: row {number} has no list 'messages' (it has {has})")
        elif problem := next(filter(None, map(_problem, messages)), ""):
            yield Broken(f"{where}: row {number} {problem}")
        else:
            turns = tuple(Message(turn["role"], turn["content"]) for turn in messages)
            yield Document(messages=turns, split=split)


def _problem(turn: Any) -> str:  # noqa: ANN401 - whatever the file holds
    """Return what is wrong with one message; nothing, if it is good."""
    for key in Message._fields:
        if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
            return f"has a message without the text {key!r}"
        try:
            turn[key].encode("utf-8")
        except UnicodeEncodeError:
            return f"has half a surrogate pair in {key!r}, which is not Unicode text"
    return "" if turn["role"] else "has a message whose 'role' is empty"
