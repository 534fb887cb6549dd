"""The `ultrachat` source: chats with `messages: [{role, content}]`, from the hub or a file."""

from collections.abc import Iterator
from typing import Any

from newllm_core.data.sources.base import DataSource, Document, Message, Split
from newllm_core.data.sources.files import input_file
from newllm_core.data.sources.rows import hub_rows, local_rows
from newllm_core.errors import InputError

REPOSITORY = "HuggingFaceH4/ultrachat_200k"
HUB_SPLITS: dict[str, Split] = {"train_sft": "train", "test_sft": "validation"}


class UltraChat(DataSource):
    """One document per chat; the hub's data comes divided, a file's does not."""

    def documents(self) -> Iterator[Document]:
        """Yield the chats in their order; on the hub, training ones first.

        Raises:
            InputError: no such file, the hub is out of reach, or a row is no chat.
        """
        if self.input is None:
            for name, split in HUB_SPLITS.items():
                rows = hub_rows(REPOSITORY, name)
                yield from chats(rows, f"{REPOSITORY} {name}", split)
        else:
            path = input_file("ultrachat", self.input, "a .jsonl, .json or .parquet file of chats")
            yield from chats(local_rows(path), str(path), None)


def chats(rows: Iterator[dict[str, Any]], where: str, split: Split | None) -> Iterator[Document]:
    """Turn rows into documents; `where` names their origin for errors."""
    for number, row in enumerate(rows, start=1):
        messages = row.get("messages")
        if not isinstance(messages, list):
            has = ", ".join(row) or "nothing"
            raise InputError(f"{where}: row {number} has no list 'messages' (it has {has})")
        yield Document(
            messages=tuple(_message(turn, f"{where}: row {number}") for turn in messages),
            split=split,
        )


def _message(turn: Any, where: str) -> Message:  # noqa: ANN401 - whatever the file holds
    for key in Message._fields:
        if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
            raise InputError(f"{where} has a message without the text {key!r}")
    if not turn["role"]:
        raise InputError(f"{where} has a message whose 'role' is empty")
    return Message(turn["role"], turn["content"])
