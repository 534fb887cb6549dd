"""Folders that `prepare` wrote."""

import hashlib
import json

import numpy as np

from newllm_core.checkpoint.provenance import provenance
from newllm_core.config import Config
from newllm_core.data.prepared import open_dataset
from newllm_core.data.tokenizer import TextTokenizer
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target


class Prepared(Target):
    """A folder of which one file is damaged; half of the time with every hash made to fit."""

    file = ""

    def __init__(self, home):
        super().__init__(home)
        self.data = home.folder / "data"
        self.good = (self.data / self.file).read_bytes()
        self.path = self.folder / "out" / self.file
        self.expected = open_dataset(self.data)

    def write(self, random, data):
        for path in self.data.iterdir():
            copy = self.path.parent / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
        self.path.write_bytes(data)
        info = self.path.parent / "dataset.json"
        if self.path != info and random.random() < 0.5:
            content = json.loads(info.read_bytes())
            size, digest = len(data), hashlib.sha256(data).hexdigest()
            content["files"][self.file] = {"size": size, "sha256": digest}
            lines = (f"{content['files'][k]['sha256']}  {k}\n" for k in sorted(content["files"]))
            content["hash"] = hashlib.sha256("".join(lines).encode()).hexdigest()
            info.write_text(json.dumps(content), encoding="utf-8")

    def check(self):
        found = open_dataset(self.path.parent)
        equal = found.tokenizer_json == self.expected.tokenizer_json
        for split, expected in (
            (found.train, self.expected.train),
            (found.validation, self.expected.validation),
        ):
            assert int(split.tokens.max()) < found.info.vocab_size
            assert (np.diff(split.document_starts) > 0).all()
            assert split.document_starts[-1] == len(split.tokens)
            assert (split.document_bytes >= 0).all()
            assert split.document_bytes.sum() == split.num_bytes
            equal &= np.array_equal(split.tokens, expected.tokens)
            equal &= np.array_equal(split.document_starts, expected.document_starts)
        tokenizer = TextTokenizer.from_json(found.tokenizer_json)
        assert (tokenizer.vocab_size, tokenizer.end_id) == (
            found.info.vocab_size,
            found.info.end_id,
        )
        tokenizer.decode(found.train.tokens[:100].tolist())
        json.dumps(found.info.to_dict())
        provenance(Config(), found)
        return EQUAL if equal else VALID


class DatasetInfo(Prepared):
    kind, file = "json", "dataset.json"


class TokenFile(Prepared):
    kind, file = "bytes", "train.tokens"


class Boundaries(Prepared):
    kind, file = "npy", "train.documents.npy"


class ByteCounts(Prepared):
    kind, file = "npy", "validation.bytes.npy"


class PreparedTokenizer(Prepared):
    kind, file = "json", "tokenizer.json"
