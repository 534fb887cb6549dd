"""Documents kept in a temporary file, so that memory does not grow with the corpus."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.sources.base import Document, Message, Split
from newllm_core.errors import InputError, PluginError

DIGEST_BYTES = 16
BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """Where a document is in the spool, and what must be known of it without reading it.

    Attributes:
        offset: first byte in the spool.
        length: bytes in the spool.
        size: UTF-8 bytes of its contents; for token ids, their number.
        digest: keyed hash of its contents: equal for exact duplicates.
        split: what the source said.
    """

    offset: int
    length: int
    size: int
    digest: bytes
    split: Split | None


class Spool:
    """A file of documents; `roles` collects those of all chats.

    Args:
        path: the file, which is made anew.
        seed: key of the digests, so that their order differs from seed to seed.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._file = path.open("w+b")
        self._key = seed.to_bytes(8, "little")
        self._end = 0
        self.roles: set[str] = set()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def append(self, document: Document) -> Record | None:
        """Write a document; None for one without contents, which is left out.

        Raises:
            InputError: a text is not valid Unicode.
            PluginError: the document is none.
        """
        check_document(document)
        if not (document.tokens or any(contents(document))):
            return None
        line = _to_line(document)
        self._file.seek(self._end)
        self._file.write(line)
        if document.messages is not None:
            self.roles.update(message.role for message in document.messages)
        record = Record(
            offset=self._end,
            length=len(line),
            size=len(document.tokens or ()) + sum(map(count_bytes, contents(document))),
            digest=self._digest(line),
            split=document.split,
        )
        self._end += len(line)
        return record

    def digest(self, document: Document) -> bytes:
        """The digest that `append` gives a document with these contents."""
        return self._digest(_to_line(document))

    def read(self, record: Record) -> Document:
        """The document of `record`, without its split."""
        self._file.seek(record.offset)
        line = json.loads(self._file.read(record.length))
        if "text" in line:
            return Document(text=line["text"])
        if "messages" in line:
            return Document(messages=tuple(Message(*message) for message in line["messages"]))
        return Document(tokens=tuple(line["tokens"]))

    def batches(self, records: Sequence[Record]) -> Iterator[list[Document]]:
        """Read the documents of `records` in their order, about `BATCH_BYTES` at a time."""
        batch: list[Document] = []
        length = 0
        for record in records:
            batch.append(self.read(record))
            length += record.length
            if length >= BATCH_BYTES:
                yield batch
                batch, length = [], 0
        if batch:
            yield batch

    def _digest(self, line: bytes) -> bytes:
        return hashlib.blake2b(line, digest_size=DIGEST_BYTES, key=self._key).digest()


def _to_line(document: Document) -> bytes:
    for kind in ("text", "messages", "tokens"):
        value = getattr(document, kind)
        if value is not None:
            line = json.dumps({kind: value}, ensure_ascii=False) + "\n"
    try:
        return line.encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(error.object[error.start])
        raise InputError(f"a document holds {found}, which is not Unicode text") from error


def check_document(document: Any) -> None:  # noqa: ANN401 - whatever a source yielded
    """Raise `PluginError` unless a source kept the contract of `Document`."""
    if not isinstance(document, Document):
        raise PluginError(f"it yielded {type(document).__name__}, expected Document")
    given = [kind for kind in ("text", "messages", "tokens") if getattr(document, kind) is not None]
    if len(given) != 1:
        has = " and ".join(given) or "none"
        raise PluginError(f"it yielded a document with {has} of text, messages and tokens")
    if document.split not in (None, "train", "validation"):
        raise PluginError(f"it yielded a document of the split {document.split!r}")
    if not isinstance(document.text, str | None):
        raise PluginError(f"it yielded a text that is {type(document.text).__name__}, expected str")
    for message in document.messages or ():
        if not (isinstance(message, Message) and all(isinstance(part, str) for part in message)):
            raise PluginError(f"it yielded the message {message!r:.80}, expected Message(str, str)")
    for token in document.tokens or ():
        if type(token) is not int:
            raise PluginError(f"it yielded the token {token!r:.80}, expected int")
