"""What data sources read."""

import io
import json

import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from safetensors.torch import save_file

from newllm_core.data.sources.base import Broken
from newllm_core.data.sources.text_file import TextFile, TextFileOptions
from newllm_core.data.sources.tokens import Tokens
from newllm_core.data.sources.ultrachat import UltraChat
from newllm_core.data.unfinished import check_document
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target


class TokenIds(Target):
    """Ids made by hand, for the source `tokens`."""

    kind, suffix = "json", ".json"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / f"ids{self.suffix}"
        self.save()
        self.good = self.path.read_bytes()
        self.expected = list(Tokens(str(self.path)).documents())

    def save(self):
        self.path.write_text("[[1, 2, 3], [4, 5], [6]]")

    def check(self):
        found = list(Tokens(str(self.path)).documents())
        for document in found:
            check_document(document)
        return EQUAL if found == self.expected else VALID


class TokenIdsNpy(TokenIds):
    kind, suffix = "npy", ".npy"

    def save(self):
        np.save(self.path, np.arange(12).reshape(3, 4))


class TokenIdsSafetensors(TokenIds):
    kind, suffix = "safetensors", ".safetensors"

    def save(self):
        save_file({"a": torch.arange(12).reshape(3, 4), "b": torch.arange(3)}, self.path)


class Documents(Target):
    """A file of which a source makes documents."""

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / f"documents{self.suffix}"
        self.good = self.make()
        self.path.write_bytes(self.good)
        self.expected = self.documents()

    def check(self):
        found = self.documents()
        for document in found:
            if not isinstance(document, Broken):
                check_document(document)
        return EQUAL if found == self.expected else VALID


class Chats(Documents):
    kind, suffix = "lines", ".jsonl"
    turns = ({"role": "user", "content": "é?\n"}, {"role": "assistant", "content": "yes"})

    def make(self):
        return "\n".join([json.dumps({"messages": self.turns})] * 8).encode("utf-8")

    def documents(self):
        return list(UltraChat(str(self.path)).documents())


class ChatParquet(Chats):
    kind, suffix = "bytes", ".parquet"

    def make(self):
        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist([{"messages": self.turns}] * 8), file)
        return file.getvalue()


class Text(Documents):
    kind, suffix = "lines", ".txt"

    def make(self):
        return "\n\n".join(f"é {i} 𝄞 the cat\nsat" for i in range(20)).encode("utf-8")

    def documents(self):
        options = TextFileOptions(document_separator=r"\n\n")
        return list(TextFile(str(self.path), options).documents())
