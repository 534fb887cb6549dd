import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import newllm_core
from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config, ModelConfig
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.evaluation.contexts import contexts_in_order
from newllm_core.files.tensor_files import open_tensors
from newllm_core.model.language_model import LanguageModel
from tests.generation.cases import TOKENIZERS

TEXT = "the cat sat on the mat.\n\nça va, é? 日本 𝄞 here.\r\n\tThe END <|user|> of it" * 6


def save(path, tokenizer, *, context_dim=8, cell="gru"):
    """A checkpoint of Phase 1, without any training."""
    shape = ModelConfig(context_dim=context_dim, embed_dim=8, cell=cell)
    model = LanguageModel(shape, tokenizer.vocab_size)
    probes = {split: torch.zeros(1, 4, dtype=torch.long) for split in ("train", "validation")}
    config = Config(model=shape, cell=model.cell_options)
    made = Checkpoint(model, config, tokenizer.to_json(), "phase1", probes=probes, warmup=0)
    checkpoints.save(made, path, overwrite=False)
    return path


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture
def newllm(newllm, tmp_path):
    save(tmp_path / "a.safetensors", TOKENIZERS["bpe"]())
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8", newline="")
    return newllm


def read(path):
    with open_tensors(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def one_by_one(model, ids, start):
    """The contexts after each of `ids`, one step of the model at a time."""
    context, contexts = model.start(1), []
    with torch.no_grad():
        for token in [start, *ids]:
            context = model.step(context=context, token=model.embed(torch.tensor([token])))[-1]
            contexts.append(context)
    return torch.cat(contexts[1:]).numpy()


@pytest.mark.parametrize("cell", ["gru", "residual"])
def test_contexts_are_those_of_the_model_step_by_step(newllm, tmp_path, cell):
    path = save(tmp_path / f"{cell}.safetensors", TOKENIZERS["bpe"](), cell=cell)
    done = newllm("contexts", path, "--text=text.txt", "--out=c.safetensors", "--json")
    found, metadata = read(tmp_path / "c.safetensors")
    loaded = checkpoints.load(path)
    tokenizer = TextTokenizer.from_json(loaded.tokenizer_json)
    ids = tokenizer.encode(TEXT)
    assert found["tokens"].tolist() == ids
    assert found["contexts"].dtype == np.float32
    expected = one_by_one(loaded.model, ids, tokenizer.end_id)
    np.testing.assert_allclose(found["contexts"], expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected, axis=0).min() > 0.01
    assert metadata["checkpoint"] == loaded.identity()
    assert metadata["newllm"] == newllm_core.__version__
    assert done.json | {"text": ""} == {
        "schema": 1,
        "checkpoint": str(path),
        "text": "",
        "files": ["c.safetensors"],
        "num_tokens": len(ids),
        "context_dim": 8,
    }


@pytest.mark.parametrize("piece", [1, 40, 10**6])
def test_offsets_are_places_in_the_bytes_of_the_text(tokenizer, piece, monkeypatch):
    monkeypatch.setattr("newllm_core.evaluation.contexts.PIECE_CHARACTERS", piece)
    model = LanguageModel(ModelConfig(context_dim=8, embed_dim=8), tokenizer.vocab_size)
    parts = list(contexts_in_order(model, tokenizer, [TEXT]))
    ids = np.concatenate([part.tokens_T for part in parts]).tolist()
    offsets = np.concatenate([part.offsets_T2 for part in parts]).tolist()
    assert ids == tokenizer.encode(TEXT)
    data = TEXT.encode()
    seen = set()
    for token, (begin, end) in zip(ids, offsets, strict=True):
        text = data[begin:end].decode()  # whole characters
        shown = tokenizer.decode([token])
        if "\ufffd" in shown:  # a part of a character
            assert any(ord(letter) > 127 for letter in text)
        elif shown.strip(" #") and tokenizer.spelling(token) not in ("[UNK]", "<unk>"):
            assert shown.strip(" #").lower() in text.lower()
            seen.add(shown)
    assert len(seen) > 5
    begins = [begin for begin, _ in offsets]
    assert begins == sorted(begins)
    assert offsets[-1][1] == len(data)


def test_both_formats_hold_the_same_numbers(newllm, tmp_path):
    for out in ("c.safetensors", "c.npy"):
        assert newllm("contexts", "a.safetensors", "--text=text.txt", f"--out={out}").code == 0
    found, _ = read(tmp_path / "c.safetensors")
    for name, file in (("contexts", "c"), ("tokens", "c.tokens"), ("offsets", "c.offsets")):
        array = np.load(tmp_path / f"{file}.npy", mmap_mode="r")
        assert array.dtype == found[name].dtype
        np.testing.assert_array_equal(array, found[name])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.safetensors", "text.txt", "c.safetensors", "c.npy", "c.tokens.npy", "c.offsets.npy")
    }


def test_stdin_is_read_as_a_file_is(newllm, tmp_path):
    newllm("contexts", "a.safetensors", "--text=text.txt", "--out=f.safetensors")
    marked = b"\xef\xbb\xbf" + TEXT.encode()
    done = newllm("contexts", "a.safetensors", "--text=-", "--out=s.safetensors", stdin=marked)
    assert done.code == 0
    assert (tmp_path / "s.safetensors").read_bytes() == (tmp_path / "f.safetensors").read_bytes()


@pytest.mark.parametrize("out", ["c.safetensors", "c.npy"])
def test_nothing_is_overwritten_unasked(newllm, tmp_path, out):
    arguments = ("contexts", "a.safetensors", "--text=text.txt", f"--out={out}")
    last = tmp_path / ("c.offsets.npy" if out == "c.npy" else out)
    last.write_bytes(b"mine")
    refused = newllm(*arguments)
    assert (refused.code, last.read_bytes()) == (3, b"mine")
    assert f"{last.name} exists" in refused.err
    assert newllm(*arguments, "--overwrite").code == 0
    assert last.read_bytes() != b"mine"


@pytest.mark.parametrize("linked", ["c.npy", "c.tokens.npy"])
def test_a_link_may_lead_to_another_disk(newllm, tmp_path, linked):
    if not (os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK)):
        pytest.skip("no other file system is known here")
    arguments = ("contexts", "a.safetensors", "--text=text.txt", "--out=c.npy")
    assert newllm(*arguments).code == 0
    whole = (tmp_path / linked).read_bytes()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / linked).unlink()
        (tmp_path / linked).symlink_to(f"{other}/far.npy")
        done = newllm(*arguments, "--overwrite")
        assert done.code == 0, done.err
        assert (tmp_path / linked).is_symlink()
        assert Path(other, "far.npy").read_bytes() == whole
        assert os.listdir(other) == ["far.npy"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--text=none.txt", "--out=c.npy"], 3, ["none.txt", "no such file"]),
        (["--text=empty.txt", "--out=c.npy"], 3, ["empty.txt is empty"]),
        (["--text=latin1.txt", "--out=c.safetensors"], 3, ["latin1.txt is not UTF-8", "line 2"]),
        (["--text=-", "--out=c.safetensors"], 3, ["stdin is empty"]),
        (["--text=text.txt", "--out=c.txt"], 2, ["c.txt", ".safetensors or .npy"]),
        (["--text=text.txt", "--out=text.txt/c.npy"], 3, ["cannot write", "text.txt/c.npy"]),
        (["--text=text.txt", "--out=c.npy", "--set=run.sede=1"], 2, ["run.sede"]),
    ],
)
def test_a_mistake_is_one_helpful_line(newllm, tmp_path, arguments, code, words):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes("der\nKäse".encode("latin-1"))
    before = sorted(tmp_path.iterdir())
    done = newllm("contexts", "a.safetensors", *arguments)
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert all(word in done.err for word in words)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_one_line_and_leaves_nothing(newllm, tmp_path):
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        done = newllm("contexts", "a.safetensors", "--text=text.txt", "--out=c.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 3
    assert "cannot write c.safetensors" in done.err
    assert len(done.err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_memory_does_not_grow_with_the_text(tmp_path):
    save(tmp_path / "a.safetensors", TOKENIZERS["bpe"](), context_dim=4096, cell="mingru")
    line = "the cat sat on the mat.\n"
    (tmp_path / "short.txt").write_text(line * 10)
    (tmp_path / "long.txt").write_text(line * 200)
    # Both in one process, so that what is loaded and cached once does not count.
    program = """
import json, resource, torch
from pathlib import Path
from newllm_core.checkpoint.format import load
from newllm_core.data.sources import decoding
from newllm_core.evaluation import contexts
from newllm_core.runtime.progress import Task
contexts.TOKENS_AT_ONCE = 64
decoding.CHUNK_BYTES = 500
contexts.PIECE_CHARACTERS = 500
torch.set_num_threads(1)
checkpoint = load(Path("a.safetensors"))
peaks = []
for name in ("short", "short", "long"):
    chunks = decoding.read_chunks(Path(name + ".txt"))
    contexts.write_contexts(checkpoint, chunks, Path(name + ".npy"), name=name, overwrite=True,
                            task=Task())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(peaks))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    peaks = json.loads(done.stdout)
    written = (tmp_path / "long.npy").stat().st_size
    assert written > 15 * (tmp_path / "short.npy").stat().st_size
    assert peaks[2] - peaks[1] < written / 3
