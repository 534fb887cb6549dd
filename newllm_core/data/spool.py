"""Documents kept in a temporary file, so that memory does not grow with the corpus."""

import codecs
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.data.documents import MESSAGES, RECORD, TEXT, TOKENS, of_split
from newllm_core.data.pieces import with_last
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.unfinished import Unfinished, check_document
from newllm_core.errors import PluginError

if TYPE_CHECKING:
    import numpy as np

BATCH_BYTES = 1 << 20
LEAST_SEARCHED = 1 << 10
TOKEN_BYTES = 8

Cut = Callable[[Iterable[str]], Iterator[str]]


class Spool:
    """A file of documents, one after another; `roles` collects those of all chats.

    Texts are UTF-8, chats JSON, token ids int64. The file is made anew at `path`; `seed` is the key
    of the digests, so that their order differs from seed to seed.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._file = path.open("w+b", buffering=BATCH_BYTES)
        self._key = seed.to_bytes(8, "little")
        self.roles: set[str] = set()
        self._records = bytearray()
        self._end = 0
        self._open: Unfinished | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def append(self, document: Document) -> bool:
        """Write a document or a part of one; return whether that completed one.

        One without contents, or of white space alone, is left out. `InputError` for a text that is
        not Unicode, `PluginError` for no document, or one that does not go on where it should.
        """
        kind = check_document(document)
        part = self._open or Unfinished(kind, document.split, self._key)
        if (kind, document.split) != (part.kind, part.split):
            raise PluginError("it yielded a document that does not go on with the one before")
        self._file.write(part.add(document))
        if document.continues:
            self._open = part
            return False
        self._open = None
        if part.blank:
            self._file.seek(self._end)
            return False
        if document.messages is not None:
            self.roles.update(message.role for message in document.messages)
        self._records += part.record(self._end)
        self._end += part.length
        return True

    def finish(self) -> "np.ndarray":
        """Return the documents since the last call, as an array of `RECORD`s.

        `PluginError` if the last one continues.
        """
        import numpy as np

        if self._open is not None:
            raise PluginError("its last document continues, but nothing follows")
        self._file.truncate(self._end)
        self._file.flush()
        records, self._records = self._records, bytearray()
        return np.frombuffer(records, RECORD)

    def cut(self, documents: "np.ndarray", held_out: Mapping[str, float]) -> "np.ndarray":
        """Divide the only document, a text or token ids, by position.

        Returns one document for each split: its end becomes those that are `held_out`, in order,
        with their shares. A chat, or what comes divided, stays as it is.
        """
        import numpy as np

        begin, length, *_, kind, _ = documents[0].item()
        end = begin + length
        wanted = {split: share for split, share in held_out.items() if share}
        if kind == MESSAGES or not wanted or of_split(documents, "validation")[0]:
            return documents
        shares = list(wanted.values())
        places = [end - int(sum(shares[first:]) * (end - begin)) for first in range(len(shares))]
        inner = [self._edge(begin, place, kind) for place in places]
        edges = sorted({begin, *inner, end})
        if len(edges) < len(wanted) + 2:
            return documents
        records = b""
        for first, last, split in zip(edges, edges[1:], ("train", *wanted), strict=False):
            part = Unfinished(kind, split, self._key)
            chunks = self._chunks(first, last)
            for document in _tokens(chunks) if kind == TOKENS else _texts(chunks, iter):
                part.add(document)
            records += part.record(first)
        return np.frombuffer(records, RECORD)

    def _edge(self, begin: int, wanted: int, kind: int) -> int:
        """Return where to cut: behind the line that ends before, or else a word or character."""
        if kind == TOKENS:
            return wanted - (wanted - begin) % TOKEN_BYTES
        # Not far back: much more would be held out than was asked for.
        first = max(begin, wanted - min(BATCH_BYTES, (wanted - begin) // 16 + LEAST_SEARCHED))
        before = b"".join(self._chunks(first, wanted))
        found = before.rfind(b"\n") + 1 or before.rfind(b" ") + 1
        if not found:
            found = max(0, len(before) - 1)
            while found and before[found] & 0xC0 == 0x80:  # the middle of a character
                found -= 1
        return first + found

    def digest(self, document: Document) -> bytes:
        """Return the digest that `append` gives a document with these contents."""
        part = Unfinished(check_document(document), None, self._key)
        part.add(document)
        return part.finish()

    def documents(self, records: "np.ndarray", cut: Cut | None = None) -> Iterator[Document]:
        """Read the documents that `records` are of, in their order, without their splits.

        `cut` turns the chunks of a text of more than `BATCH_BYTES` into parts, which come as
        documents that continue. Token ids of that many bytes come in parts in any case.
        """
        for record in records:
            begin, length, *_, kind, _ = record.item()
            yield from self._read(begin, begin + length, kind, cut)

    def _read(self, begin: int, end: int, kind: int, cut: Cut | None) -> Iterator[Document]:
        if kind == MESSAGES:
            messages = json.loads(b"".join(self._chunks(begin, end)))
            yield Document(messages=tuple(Message(*message) for message in messages))
        elif kind == TEXT and (cut is None or end - begin <= BATCH_BYTES):
            yield Document(text=b"".join(self._chunks(begin, end)).decode("utf-8"))
        else:
            chunks = self._chunks(begin, end)
            parts = _tokens(chunks) if cut is None or kind == TOKENS else _texts(chunks, cut)
            for part, is_last in with_last(parts):
                yield Document(text=part.text, tokens=part.tokens, continues=not is_last)

    def _chunks(self, begin: int, end: int) -> Iterator[bytes]:
        while begin < end:
            data = os.pread(self._file.fileno(), min(BATCH_BYTES, end - begin), begin)
            if not data:
                raise OSError(f"the temporary file {self._file.name} became shorter")
            begin += len(data)
            yield data


def _tokens(chunks: Iterable[bytes]) -> Iterator[Document]:
    for chunk in chunks:
        ids = array("q")
        ids.frombytes(chunk)
        yield Document(tokens=tuple(ids), continues=True)


def _texts(chunks: Iterable[bytes], cut: Cut) -> Iterator[Document]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for part in cut(decoder.decode(chunk) for chunk in chunks):
        yield Document(text=part, continues=True)
