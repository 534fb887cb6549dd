"""The one-file format, whole."""

import json
import struct
from dataclasses import asdict
from dataclasses import replace as replaced
from types import SimpleNamespace

import pytest
import torch
from checkpoint_cases import BIAS, SHAPES, V, contents, make, refused
from safetensors.torch import load_file, save_file

from newllm_core import settings
from newllm_core.checkpoint.format import FORMAT_VERSION, load, save
from newllm_core.checkpoint.metadata import STRUCTURED
from newllm_core.checkpoint.provenance import provenance
from newllm_core.data.dataset_info import SourceInfo
from newllm_core.errors import InputError
from newllm_core.plugins.plugin import Plugin
from newllm_core.plugins.registry import Registry
from tests.data.cases import Recorder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "model.safetensors"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_everything_survives_bit_for_bit(path, shape):
    written = make(**shape)
    save(written, path, overwrite=False)
    read = load(path)
    states = zip(written.model.state_dict().items(), read.model.state_dict().items(), strict=True)
    for (name, one), (other_name, other) in states:
        assert name == other_name
        assert torch.equal(one, other), name
    for split in ("train", "validation"):
        assert torch.equal(read.probes[split], written.probes[split])
        assert read.probes[split].dtype == torch.int64
    for name in (*STRUCTURED, "config", "tokenizer_json", "phase", "warmup"):
        assert getattr(read, name) == getattr(written, name), name
    assert read.model.num_heads == written.model.num_heads
    assert read.model.seed == 3
    assert set(read.objective) == set(written.objective)
    for name, tensor in written.objective.items():
        assert torch.equal(read.objective[name], tensor), name
    assert bool(read.objective) == (read.config.phase1.objective == "reconstruction")
    trained = [p.requires_grad for p in written.model.parameters()]
    assert [p.requires_grad for p in read.model.parameters()] == trained


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_random_control_is_the_same_after_a_round_trip(path, shape):
    written = make(**shape)
    save(written, path, overwrite=False)
    one, other = written.model.untrained(), load(path).model.untrained()
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert not any(map(torch.equal, one.blocks.parameters(), written.model.blocks.parameters()))


@pytest.mark.parametrize("num_heads", [1, 2])
def test_tied_weights_are_stored_once_and_shared_again(path, num_heads):
    save(make(tie_weights=True, embed_dim=13, num_heads=num_heads), path, overwrite=False)
    vocabulary_sized = [name for name, t in load_file(path).items() if t.shape == (V, 13)]
    assert len(vocabulary_sized) == num_heads
    model = load(path).model
    assert model.token_output[-1].weight is model.embedding.weight


def test_an_objective_may_keep_counters(path):
    counters = {"steps": torch.tensor(7), "mean": torch.tensor([0.5]), "seen": torch.tensor([True])}
    counters["narrow"] = torch.tensor([0.5], dtype=torch.bfloat16)  # numpy has no such type
    save(replaced(make(), objective=counters), path, overwrite=False)
    read = load(path)
    assert not read.altered
    assert {name: tensor.tolist() for name, tensor in read.objective.items()} == {
        "steps": 7,
        "mean": [0.5],
        "seen": [True],
        "narrow": [0.5],
    }


def test_of_what_was_altered_nothing_measured_is_told(path):
    written = replaced(make(), tokenizer_json="")
    written.provenance["identity"] = {"run.seed": 3}
    save(written, path, overwrite=False)
    assert not load(path).altered
    tensors, metadata = contents(path)
    measured = ("history", "vacuous_terms", "gate", "results")

    def altered():
        save_file(tensors, path, metadata)
        progress = Recorder()
        checkpoint = load(path, progress=progress)
        assert [str(path) in line for line in progress.warnings] == [True] * checkpoint.altered
        told = [getattr(checkpoint, name) for name in measured]
        assert told == [[], [], {}, {}] or not checkpoint.altered
        assert ("identity" in checkpoint.provenance) is not checkpoint.altered
        assert checkpoint.provenance["dataset_path"] == "data"
        return checkpoint.altered

    assert not altered()
    tensors[BIAS][0] *= 1.0001
    assert altered()
    save(written, path, overwrite=True)
    tensors = load_file(path)
    assert not altered()
    metadata["results"] += " "
    assert altered()
    metadata.pop("content_hash")
    assert altered()
    # A tokenizer is looked at where somebody else may have made it.
    metadata["tokenizer"] = "{}"
    save_file(tensors, path, metadata)
    assert "not a tokenizer" in refused(path)


def test_the_file_holds_tensors_and_text_only(path):
    save(make(), path, overwrite=False)
    tensors, metadata = contents(path)
    assert metadata["format"] == "newllm"
    assert metadata["format_version"] == str(FORMAT_VERSION)
    assert json.loads(metadata["config"])["model"]["context_dim"] == 13
    assert json.loads(metadata["vacuous_terms"]) == ["regularizer"]
    assert {"probe.train", "probe.validation", "embedding.weight"} <= tensors.keys()
    header = path.read_bytes()[8:]
    assert header.startswith(b"{")
    assert b"pickle" not in header


def test_the_same_checkpoint_gives_the_same_tensors_on_disk(tmp_path):
    contents = []
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        save(make(), path, overwrite=False)
        contents.append(path.read_bytes())
    # Tensors follow the header, whose metadata are in no fixed order.
    starts = [8 + struct.unpack("<Q", content[:8])[0] for content in contents]
    assert contents[0][starts[0] :] == contents[1][starts[1] :]


def test_provenance_names_versions_dataset_and_plugins(monkeypatch):
    mine = Plugin("regularizer", "mine", "mine.reg:Mine", "newllm-mine", "1.2")
    find = Registry.find
    monkeypatch.setattr(Registry, "find", lambda of, n: mine if n == "mine" else find(of, n))
    source = SourceInfo("letters", "a.csv", {"text_column": "text"}, "newllm-letters", "0.1")
    dataset = SimpleNamespace(hash="abc", path="/data", info=SimpleNamespace(sources=[source]))
    found = provenance(settings.resolve({"phase1": {"reg": "mine"}}), dataset)
    assert found["torch"] == torch.__version__
    assert (found["dataset_hash"], found["dataset_path"]) == ("abc", "/data")
    names = [(record["kind"], record["name"]) for record in found["plugins"]]
    assert names[:2] == [("cell", "residual"), ("objective", "reconstruction")]
    assert found["plugins"][2:] == [
        {
            "kind": "regularizer",
            "name": "mine",
            "distribution": "newllm-mine",
            "version": "1.2",
            "target": "mine.reg:Mine",
        },
        {"kind": "data source"} | asdict(source),
    ]


def test_nothing_is_overwritten_unasked(path):
    save(make(), path, overwrite=False)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"exists: .*--overwrite"):
        save(make(num_heads=2), path, overwrite=False)
    assert path.read_bytes() == before
    save(make(num_heads=2), path, overwrite=True)
    assert load(path).model.num_heads == 2
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_save_that_fails_midway_leaves_the_old_checkpoint(path, monkeypatch):
    save(make(), path, overwrite=False)
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise RuntimeError("midway")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(RuntimeError, match="midway"):
        save(make(num_heads=2), path, overwrite=True)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written(tmp_path):
    # The name itself is short enough, that of the temporary file beside it is not.
    with pytest.raises(InputError, match="cannot write"):
        save(make(), tmp_path / ("n" * 250), overwrite=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        save(make(), tmp_path / "file" / "model.safetensors", overwrite=False)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_largest_and_smallest_probe_tokens_are_accepted(path):
    checkpoint = make()
    checkpoint.probes["train"][0, :2] = torch.tensor([0, V - 1])
    save(checkpoint, path, overwrite=False)
    assert load(path).probes["train"][0, :2].tolist() == [0, V - 1]
