"""Tokenizers: ours, and those of others."""

import json

from newllm_core.config import DataConfig
from newllm_core.data.make_tokenizer import load_base
from newllm_core.data.tokenizer import TextTokenizer
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target

TEXT = "the cat sat on the mat.\n<|user|> é 𝄞 \t\n"


class TokenizerJson(Target):
    """Our own tokenizer.json, or one of a library, adopted and used."""

    kind = "json"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "tokenizer.json"
        self.good = self.make(home).encode("utf-8")
        self.path.write_bytes(self.good)
        self.expected = self.used()[1:]

    def make(self, home):
        return home.bpe.to_json()

    def configured(self):
        return DataConfig(tokenizer=str(self.path))

    def used(self):
        base = load_base(self.configured())
        found = TextTokenizer.adopt(base, {"user"})
        ids = found.encode(TEXT)
        return found, ids, found.decode(ids), [o for _, o in found.encodings(TEXT)]

    def check(self):
        found, ids, *rest = self.used()
        assert all(
            0 <= i < found.vocab_size for i in [*ids, found.end_id, *found.role_ids.values()]
        )
        again = TextTokenizer.from_json(found.to_json())
        assert (again.encode(TEXT), again.end_id) == (ids, found.end_id)
        return EQUAL if (ids, *rest) == self.expected else VALID


class ForeignTokenizer(TokenizerJson):
    def make(self, home):
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        pieces = [("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in "thecasonm.é")]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(" ", "▁"), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(r"\s+|\w+", "isolated"), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0), decoders.Metaspace()]
        )
        return tokenizer.to_str()


class Gpt2File(TokenizerJson):
    """One of the two files that GPT-2's tokenizer comes in."""

    def __init__(self, home):
        Target.__init__(self, home)
        model = json.loads(home.bpe.to_json())["model"]
        merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
        self.contents = {
            "vocab.json": json.dumps(model["vocab"]),
            "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        }
        for name, content in self.contents.items():
            (self.folder / name).write_text(content, encoding="utf-8")
        self.path = self.folder / self.file
        self.good = self.path.read_bytes()
        self.expected = self.used()[1:]

    def configured(self):
        return DataConfig(tokenizer="gpt2", tokenizer_path=str(self.folder))


class Vocabulary(Gpt2File):
    kind, file = "json", "vocab.json"


class Merges(Gpt2File):
    kind, file = "lines", "merges.txt"
