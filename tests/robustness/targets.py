"""Files that newllm reads, how a damaged one is loaded, and what must hold if it does load.

A target's `check` returns "equal" (the same as the undamaged file gives) or "valid" (something else
that a file of its kind may hold), raises a `UserError`, or fails.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import sys
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from newllm_cli.__main__ import main
from newllm_core import checkpoint as checkpoints
from newllm_core import settings
from newllm_core.analysis.matrix import analyze_matrix
from newllm_core.checkpoint_metadata import GATE_FIGURES
from newllm_core.config import AnalysisConfig, DataConfig
from newllm_core.data.make_tokenizer import load_base, train_bpe
from newllm_core.data.prepare import prepare
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.base import Broken
from newllm_core.data.sources.tokens import Tokens
from newllm_core.data.sources.ultrachat import UltraChat
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.data.unfinished import check_document
from newllm_core.errors import InputError, UserError
from newllm_core.generation.session import Session
from newllm_core.generation.state import load_state, save_state
from newllm_core.generation.writer import Tail
from newllm_core.model.embeddings import load_embeddings
from newllm_core.model.language_model import LanguageModel
from newllm_core.training import state as training_state

EQUAL, VALID = "equal", "valid"
TEXT = "the cat sat on the mat.\n<|user|> é 𝄞 \t\n"


class Home:
    """A folder with one good file of every kind."""

    def __init__(self, folder):
        self.folder = folder
        corpus = folder / "corpus.txt"
        corpus.write_text("|".join(f"the cat {i} sat\non mat {i * i}" for i in range(40)))
        self.bpe = train_bpe([corpus.read_text()], 280, {"user"})
        (folder / "tokenizer.json").write_text(self.bpe.to_json(), encoding="utf-8")
        config = DataConfig(
            source="text-file",
            input=str(corpus),
            tokenizer=str(folder / "tokenizer.json"),
            val_fraction=0.2,
            val_token_policy="keep",
        )
        prepare(config, {"document_separator": "|"}, folder / "data", seed=0)
        self.checkpoint = folder / "model.safetensors"
        checkpoints.save(self._checkpoint(), self.checkpoint, overwrite=True)

    def _checkpoint(self):
        config = settings.resolve(
            {
                "model": {"context_dim": 8, "embed_dim": 8, "layer_structure": [1, 1]},
                "regularizer": {"momentum": 0.9},
            }
        )
        generator = torch.Generator().manual_seed(0)
        entry = {"window": 0, "iteration": 1, "terms": {"cvfp": 0.5}, "weight_change": 0.25}
        ratios = {"train": 0.5, "validation": None}
        figures = dict.fromkeys(GATE_FIGURES, 0.5) | {"num_tokens": 64, "context_dim": 8}
        return checkpoints.Checkpoint(
            model=LanguageModel(config.model, self.bpe.vocab_size, num_heads=2, seed=1),
            config=config,
            tokenizer_json=self.bpe.to_json(),
            phase="phase2",
            probes={
                split: torch.randint(0, 280, (2, 40), generator=generator)
                for split in ("train", "validation")
            },
            warmup=8,
            history=[entry, entry | {"converged_ratio": ratios, "gradient_norms": {"cvfp": 1.0}}],
            vacuous_terms=["regularizer"],
            gate={"train": figures, "validation": figures},
            results={"train": {"loss": 1.0}, "validation": {"loss": 2.0, "perplexity": None}},
            provenance={
                "dataset_path": str(self.folder / "data"),
                "plugins": [
                    {"kind": "regularizer", "name": "x", "distribution": "y", "version": "1"}
                ],
            },
        )


class Target:
    """Sets up one good file, `self.good`, and checks damaged ones."""

    kind = ""

    def __init__(self, home):
        self.home = home
        self.folder = home.folder / type(self).__name__
        self.folder.mkdir()
        self.path = self.folder / "file"
        self.good = b""

    def write(self, random, data):
        """Put the damaged bytes where they are read."""
        self.path.write_bytes(data)


class Checkpoint(Target):
    kind = "checkpoint"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "model.safetensors"
        self.good = home.checkpoint.read_bytes()
        self.expected = checkpoints.load(home.checkpoint)

    def check(self):
        found = checkpoints.load(self.path)
        assert all(bool(torch.isfinite(p).all()) for p in found.model.parameters())
        assert all(int(p.min()) >= 0 and int(p.max()) < 280 for p in found.probes.values())
        assert all(found.warmup < p.shape[1] for p in found.probes.values())
        if not found.altered:
            assert_same(found, self.expected)
            return EQUAL
        again = self.folder / "again.safetensors"
        checkpoints.save(found, again, overwrite=True)
        assert_same(checkpoints.load(again), found)
        return VALID


def assert_same(found, expected):
    states = [checkpoint.model.state_dict() for checkpoint in (found, expected)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(found.probes[s], expected.probes[s]) for s in ("train", "validation"))
    for field in dataclasses.fields(found):
        if field.name not in ("model", "probes", "altered"):
            assert getattr(found, field.name) == getattr(expected, field.name), field.name


class Analyze(Checkpoint):
    """The whole command on a damaged checkpoint."""

    OPTIONS = ("--num-pairs=50", "--dynamics-steps=8", "--dynamics-passages=2", "--memory-lags=2")

    def check(self):
        arguments = ["analyze", str(self.path), "--json", "--threads=1", *self.OPTIONS]
        code, out, err = newllm(arguments)
        if code:
            assert code in (3, 5), (code, err)
            *before, last = err.splitlines()
            assert last.startswith("newllm: "), err
            # Contexts that explode are found on the way; nothing else is.
            assert not before or code == 5, err
            raise InputError(last)
        report = json.loads(out)
        assert {"train", "validation", "verdicts"} <= report.keys()
        assert not [line for line in err.splitlines() if "Traceback" in line or "Warning" in line]
        return VALID if "not as newllm wrote it" in err else EQUAL


def newllm(arguments):
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["newllm", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


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
        json.dumps(found.info.to_dict())
        checkpoints.provenance(dataset=found.hash, dataset_path="x", plugins=[])
        return EQUAL if equal else VALID


class DatasetInfo(Prepared):
    kind, file = "json", "dataset.json"


class TokenFile(Prepared):
    kind, file = "bytes", "train.tokens"


class Boundaries(Prepared):
    kind, file = "npy", "train.documents.npy"


class ByteCounts(Prepared):
    kind, file = "npy", "validation.bytes.npy"


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

    def used(self):
        base = load_base(DataConfig(tokenizer=str(self.path)))
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


class Matrix(Target):
    """`analyze --tensor` on a file that is nobody's checkpoint."""

    kind = "safetensors"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "matrix.safetensors"
        generator = torch.Generator().manual_seed(1)
        matrix = torch.randn(12, 4, generator=generator)
        save_file({"wte": matrix, "bias": torch.ones(4), "ids": torch.arange(6)}, self.path)
        self.good = self.path.read_bytes()
        self.expected = matrix.numpy()

    def read(self, name):
        return load_file(self.path)[name]

    def check(self):
        report = analyze_matrix(self.path, None, config=AnalysisConfig(num_pairs=20))
        json.dumps(report, allow_nan=False)
        stored = self.read(report["tensor"]).astype(np.float64)
        assert report["shape"] == list(stored.shape)
        mean = float(np.linalg.norm(stored, axis=1).mean())
        assert math.isclose(report["norm"]["mean"], mean, rel_tol=1e-4), "another mean norm"
        return EQUAL if np.array_equal(stored, self.expected.astype(np.float64)) else VALID


class NpyMatrix(Matrix):
    kind = "npy"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "matrix.npy"
        np.save(self.path, self.expected)
        self.good = self.path.read_bytes()

    def read(self, name):
        return np.load(self.path, allow_pickle=False)


class Embeddings(Matrix):
    def check(self):
        config = settings.resolve({"model": {"context_dim": 4, "embed_dim": 4}}).model
        model = LanguageModel(config, 13)
        load_embeddings(model, str(self.path), added_tokens=1)
        table = model.embedding.weight.detach()
        assert bool(torch.isfinite(table).all())
        (stored,) = (v for v in load_file(self.path).values() if v.ndim == 2)
        assert np.allclose(table[: len(stored)], stored.astype(np.float32), equal_nan=False)
        return EQUAL if np.array_equal(stored, self.expected) else VALID


class Toml(Target):
    kind = "toml"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "config.toml"
        lines = []
        values = settings.to_dict(settings.resolve({"source": {"pattern": "*.txt"}}))
        for section, keys in values.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(v)}" for key, v in keys.items() if v is not None]
        self.good = "\n".join(lines).encode("utf-8")
        self.expected = values

    def check(self):
        found = settings.to_dict(settings.resolve(settings.from_file(str(self.path))))
        assert settings.to_dict(settings.resolve(found)) == found
        return EQUAL if found == self.expected else VALID


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


class Chats(Target):
    kind = "lines"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "chats.jsonl"
        turns = [{"role": "user", "content": "é?\n"}, {"role": "assistant", "content": "yes"}]
        self.good = ("\n".join([json.dumps({"messages": turns})] * 8)).encode("utf-8")
        self.path.write_bytes(self.good)
        self.expected = list(UltraChat(str(self.path)).documents())

    def check(self):
        found = list(UltraChat(str(self.path)).documents())
        for document in found:
            if not isinstance(document, Broken):
                check_document(document)
        return EQUAL if found == self.expected else VALID


class GenerationState(Target):
    kind = "checkpoint"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "text.state"
        self.checkpoint = checkpoints.load(home.checkpoint)
        session = Session(self.checkpoint.model, self.checkpoint.config.generation, start_id=3)
        identity = self.checkpoint.identity()
        save_state(session, Tail(), self.path, identity=identity, overwrite=True)
        self.good = self.path.read_bytes()
        self.context_C = session.context_C

    def check(self):
        found = load_state(self.path, self.checkpoint, self.home.bpe)
        assert torch.equal(found.context_C, self.context_C)
        return EQUAL


IDENTITY = {"run.seed": 0, "dataset": "x"}


class TrainingState(Target):
    kind = "checkpoint"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "run.state"
        tensors = {"model.a": torch.ones(3, 4), "moment": torch.zeros(5)}
        state = training_state.State(tensors, {"step": 3, "best": 0.5})
        training_state.save_state(state, self.path, IDENTITY)
        self.good = self.path.read_bytes()

    def check(self):
        found = training_state.load_state(self.path, IDENTITY)
        return EQUAL if found.values == {"step": 3, "best": 0.5} else VALID


TARGETS = {
    target.__name__: target
    for target in (
        Checkpoint,
        Analyze,
        DatasetInfo,
        TokenFile,
        Boundaries,
        ByteCounts,
        TokenizerJson,
        ForeignTokenizer,
        Matrix,
        NpyMatrix,
        Embeddings,
        Toml,
        TokenIds,
        TokenIdsNpy,
        TokenIdsSafetensors,
        Chats,
        GenerationState,
        TrainingState,
    )
}


def outcome(target):
    """What becomes of the damaged file: refused with one line, equal or valid."""
    try:
        return target.check()
    except UserError as error:
        refusal = error
    message = str(refusal)
    assert message, "an empty message"
    assert "\n" not in message, "not one line"
    assert refusal.exit_code in (2, 3, 5), f"exit code {refusal.exit_code}"
    names_it = target.path.name in message or str(target.path.parent) in message
    assert names_it or isinstance(target, Analyze | Toml), f"it does not say where: {message}"
    return "refused"
