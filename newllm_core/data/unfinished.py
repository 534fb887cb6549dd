"""A document on its way into the spool, part by part: its bytes, sizes and digest."""

import hashlib
import json
from array import array
from typing import Any

from newllm_core.data.documents import DIGEST_BYTES, MESSAGES, PACKED, SPLITS, TEXT, TOKENS
from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.sources.decoding import utf8
from newllm_core.errors import PluginError

LARGEST_TOKEN = (1 << 32) - 1
# The digest is that of the document as a line of JSON.
BEFORE = {TEXT: b'{"text": "', MESSAGES: b'{"messages": ', TOKENS: b'{"tokens": ['}
AFTER = {TEXT: b'"}\n', MESSAGES: b"}\n", TOKENS: b"]}\n"}


class Unfinished:
    """A document of which some parts were seen: `kind` and `split` are those of all.

    Attributes:
        blank: whether it has no contents so far but white space.
        length: bytes in the spool so far.
        size: UTF-8 bytes of contents so far, or token ids.
    """

    def __init__(self, kind: int, split: str | None, key: bytes) -> None:
        self.kind = kind
        self.split = split
        self.blank = True
        self.length = self.size = 0
        self._hash = hashlib.blake2b(BEFORE[kind], digest_size=DIGEST_BYTES, key=key)

    def add(self, part: Document) -> bytes:
        """Take a part into account; its bytes in the spool."""
        if part.text is not None:
            data = utf8(part.text, "a document")
            self._hash.update(json.dumps(part.text, ensure_ascii=False)[1:-1].encode())
            self.size += len(data)
            self.blank = self.blank and (not part.text or part.text.isspace())
        elif part.messages is not None:
            data = utf8(json.dumps(part.messages, ensure_ascii=False), "a document")
            self._hash.update(data)
            self.size += sum(map(count_bytes, contents(part)))
            self.blank = not any(contents(part))
        else:
            tokens = part.tokens or ()
            data = array("q", tokens).tobytes()
            comma = ", " if self.size and tokens else ""
            self._hash.update((comma + ", ".join(map(str, tokens))).encode())
            self.size += len(tokens)
            self.blank = not self.size
        self.length += len(data)
        return data

    def finish(self) -> bytes:
        """Return the digest of all parts."""
        self._hash.update(AFTER[self.kind])
        return self._hash.digest()

    def record(self, begin: int) -> bytes:
        """Return the `RECORD` of all parts, which begin there in the spool."""
        split = SPLITS.index(self.split)
        return PACKED.pack(begin, self.length, self.size, self.finish(), self.kind, split)


def check_document(document: Any) -> int:  # noqa: ANN401 - whatever a source yielded
    """Return the kind of a document; `PluginError` where it breaks the contract of `Document`."""
    if not isinstance(document, Document):
        raise PluginError(f"it yielded {type(document).__name__}, expected Document")
    values = (document.text, document.messages, document.tokens)
    given = [kind for kind, value in enumerate(values) if value is not None]
    if len(given) != 1:
        has = " and ".join(("text", "messages", "tokens")[kind] for kind in given) or "nothing"
        raise PluginError(f"it yielded a document with {has}: give one of text, messages, tokens")
    if document.split not in SPLITS:
        raise PluginError(f"it yielded a document of the split {document.split!r}")
    if not isinstance(document.text, str | None):
        raise PluginError(f"it yielded a text that is {type(document.text).__name__}, expected str")
    for message in document.messages or ():
        if not (isinstance(message, Message) and all(isinstance(part, str) for part in message)):
            raise PluginError(f"it yielded the message {message!r:.80}, expected Message(str, str)")
    for token in document.tokens or ():
        if type(token) is not int or not 0 <= token <= LARGEST_TOKEN:
            raise PluginError(f"it yielded the token {token!r:.80}, expected an int of 32 bits")
    if document.messages is not None and document.continues:
        raise PluginError("it yielded a chat that continues, which only texts and tokens can")
    return given[0]
