"""The one-file format, whole and damaged."""

import json
import struct
from dataclasses import replace as replaced

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from newllm_core.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    load,
    plugin_record,
    provenance,
    save,
)
from newllm_core.checkpoint_metadata import GATE_FIGURES, STRUCTURED
from newllm_core.data.dataset_info import SourceInfo
from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.registry import Plugin
from newllm_core.settings import resolve
from tests.data.cases import Recorder

V = 23
SHAPES = {
    "plain": {},
    "tied": {"tie_weights": True, "embed_dim": 13},
    "tied-heads": {"tie_weights": True, "embed_dim": 13, "num_heads": 2},
    "heads": {"num_heads": 3, "layer_structure": [2, 1, 3]},
    "decoder": {"reconstruction": True, "update": "gated"},
    "tied-projected": {"tie_weights": True},
    "mogrifier": {"update": "mogrifier", "mogrifier_rounds": 3},
    "two-matrices": {"hidden_dim": 17, "layernorm_mix": 0.5},
    "pretrained": {"embeddings": "somewhere.safetensors:wte"},
}


def make(num_heads=1, reconstruction=False, **shape):
    """A checkpoint whose every value is away from where it starts."""
    shape = {"context_dim": 13, "embed_dim": 11} | shape
    config = resolve(
        {"model": shape, "phase1": {"reg": "ema-variance"}, "phase2": {"head_weights": "1,2"}},
        {"regularizer": {"momentum": 0.5}, "run": {"seed": 3}},
    )
    model = LanguageModel(
        config.model, V, num_heads=num_heads, reconstruction=reconstruction, seed=3
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json='{"model": "ä\\n"}',
        phase="phase2",
        probes={
            "train": torch.randint(0, V, (3, 40), generator=generator),
            "validation": torch.randint(0, V, (2, 31), generator=generator),
        },
        warmup=5,
        history=[{"iteration": 1, "terms": {"cvfp": 0.1234567890123}}, {"iteration": 2}],
        vacuous_terms=["regularizer"],
        gate={"train": dict.fromkeys(GATE_FIGURES, 0.5) | {"num_tokens": 8, "context_dim": 13}},
        results={"train": {"loss": 1e-17}, "validation": {"loss": None}},
        provenance={"torch": "x", "dataset_path": "data", "plugins": []},
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "model.safetensors"


@pytest.fixture
def damage(path):
    """Rewrite a good checkpoint after `change(tensors, metadata)`; returns the message it gets."""

    def rewrite(change, **shape):
        save(make(**shape), path, overwrite=True)
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        change(tensors, metadata)
        save_file(tensors, path, metadata)
        return refused(path)

    return rewrite


def refused(path):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.exit_code == 3
    return message


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
    assert (read.model.decoder is None) == (written.model.decoder is None)
    trained = [p.requires_grad for p in written.model.parameters()]
    assert [p.requires_grad for p in read.model.parameters()] == trained


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_random_control_is_the_same_after_a_round_trip(path, shape):
    written = make(**shape)
    save(written, path, overwrite=False)
    one, other = written.model.untrained(), load(path).model.untrained()
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert not torch.equal(one.blocks[0].layers[0].bias, written.model.blocks[0].layers[0].bias)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_tied_weights_are_stored_once_and_shared_again(path, num_heads):
    save(make(tie_weights=True, embed_dim=13, num_heads=num_heads), path, overwrite=False)
    vocabulary_sized = [name for name, t in load_file(path).items() if t.shape == (V, 13)]
    assert len(vocabulary_sized) == num_heads
    model = load(path).model
    assert model.token_output[-1].weight is model.embedding.weight


def test_what_was_altered_is_said(path):
    written = replaced(make(), tokenizer_json="")
    save(written, path, overwrite=False)
    assert not load(path).altered
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()

    def altered():
        save_file(tensors, path, metadata)
        progress = Recorder()
        checkpoint = load(path, progress=progress)
        assert [str(path) in line for line in progress.warnings] == [True] * checkpoint.altered
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
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = set(file.keys())
    assert metadata["format"] == "newllm"
    assert metadata["format_version"] == str(FORMAT_VERSION)
    assert json.loads(metadata["config"])["model"]["context_dim"] == 13
    assert json.loads(metadata["vacuous_terms"]) == ["regularizer"]
    assert {"probe.train", "probe.validation", "embedding.weight"} <= names
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


def test_provenance_names_versions_dataset_and_plugins():
    record = plugin_record("regularizer", Plugin("mine", "mine.reg:Mine", "newllm-mine", "1.2"))
    source = SourceInfo("table", "a.csv", {"text_column": "text"}, "newllm-tables", "0.1")
    found = provenance(dataset="abc", dataset_path="/data", plugins=[record], sources=[source])
    assert found["torch"] == torch.__version__
    assert (found["dataset_hash"], found["dataset_path"]) == ("abc", "/data")
    assert found["plugins"] == [
        {
            "kind": "regularizer",
            "name": "mine",
            "distribution": "newllm-mine",
            "version": "1.2",
            "target": "mine.reg:Mine",
        },
        {
            "kind": "data source",
            "name": "table",
            "input": "a.csv",
            "options": {"text_column": "text"},
            "distribution": "newllm-tables",
            "version": "0.1",
        },
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


def test_missing_files_and_folders(tmp_path):
    assert "no such checkpoint" in refused(tmp_path / "absent.safetensors")
    assert "is a folder" in refused(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.999])
def test_truncated_files(path, kept):
    save(make(), path, overwrite=False)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    assert "not a readable checkpoint" in refused(path)


def test_files_of_other_kinds(path):
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 a zip file, as torch.save writes one" * 10)
    assert "not a readable checkpoint" in refused(path)
    save_file({"wte": torch.ones(3, 2)}, path)
    assert "not a newllm checkpoint" in refused(path)
    save_file({"wte": torch.ones(3, 2)}, path, {"format": "pt"})
    assert "not a newllm checkpoint" in refused(path)


@pytest.mark.parametrize("version", [str(FORMAT_VERSION + 1), "", "one", None])
def test_other_format_versions(damage, version):
    def change(tensors, metadata):
        metadata.pop("format_version")
        if version is not None:
            metadata["format_version"] = version

    message = damage(change)
    assert f"format version {version!r}" in message
    assert f"reads {FORMAT_VERSION}" in message


@pytest.mark.parametrize(
    "key", ["config", "model", "history", "vacuous_terms", "gate", "results", "provenance"]
)
@pytest.mark.parametrize("content", ["", "{", "not json", None])
def test_metadata_that_are_not_json_or_missing(damage, key, content):
    def change(tensors, metadata):
        metadata.pop(key)
        if content is not None:
            metadata[key] = content

    assert "damaged checkpoint" in damage(change)


@pytest.mark.parametrize("key", ["tokenizer", "phase"])
def test_missing_text(damage, key):
    assert "damaged checkpoint" in damage(lambda tensors, metadata: metadata.pop(key))


@pytest.mark.parametrize("key", ["config", "model"])
@pytest.mark.parametrize("content", ["5", "[]", "null", '"text"', "{}", '{"run": 3}'])
def test_metadata_of_the_wrong_kind(damage, key, content):
    def change(tensors, metadata):
        metadata[key] = content

    assert "damaged checkpoint" in damage(change)


@pytest.mark.parametrize("shape", ["plain", "tied"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", V + 1),
        ("vocab_size", "many"),
        ("num_heads", 2),
        ("num_heads", 0),
        ("num_heads", None),
        ("reconstruction", True),
        ("seed", "x"),
    ],
)
def test_a_shape_that_does_not_fit_the_tensors(damage, shape, key, value):
    def change(tensors, metadata):
        metadata["model"] = json.dumps(json.loads(metadata["model"]) | {key: value})

    assert "damaged checkpoint" in damage(change, **SHAPES[shape])


@pytest.mark.parametrize(
    "changed",
    [{"context_dim": 12}, {"layer_structure": [1]}, {"hidden_dim": 5}, {"no_such_key": 1}],
)
def test_a_config_that_does_not_fit_the_tensors(damage, changed):
    def change(tensors, metadata):
        config = json.loads(metadata["config"])
        config["model"] |= changed
        metadata["config"] = json.dumps(config)

    assert "damaged checkpoint" in damage(change)


def remove(name):
    return lambda tensors, metadata: tensors.pop(name)


def replace(name, make_new):
    def change(tensors, metadata):
        tensors[name] = make_new(tensors[name])

    return change


def with_value(value):
    def make_new(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[3] = value
        return tensor

    return make_new


BIAS = "blocks.0.layers.0.bias"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (remove(BIAS), BIAS),
        (remove("embedding.weight"), "embedding"),
        (remove("token_output.0.weight"), "token_output.0.weight"),
        (remove("probe.train"), "train"),
        (remove("probe.validation"), "validation"),
        (replace("extra", lambda _: torch.ones(2)), "extra"),
        (replace(BIAS, lambda t: t[:-1]), BIAS),
        (replace(BIAS, lambda t: t[None]), BIAS),
        (replace(BIAS, lambda t: t.double()), BIAS),
        (replace("token_output.0.weight", lambda t: t.T.contiguous()), "token_output.0.weight"),
        (replace("embedding.weight", lambda t: t[:-1]), "embedding"),
        (replace("embedding.weight", with_value(float("nan"))), "embedding.weight"),
        (replace(BIAS, with_value(float("nan"))), BIAS),
        (replace(BIAS, with_value(float("inf"))), BIAS),
        (replace("probe.train", with_value(V)), "probe tokens of train"),
        (replace("probe.validation", with_value(-1)), "probe tokens of validation"),
        (replace("probe.train", lambda t: t[0]), "train"),
        (replace("probe.train", lambda t: t[:0]), "train"),
    ],
)
def test_tensors_that_do_not_fit_are_named(damage, change, word):
    def tolerant(tensors, metadata):
        tensors.setdefault("extra", torch.ones(1))
        change(tensors, metadata)
        if word != "extra":
            tensors.pop("extra")

    message = damage(tolerant)
    assert "damaged checkpoint" in message
    assert word in message


def test_largest_and_smallest_probe_tokens_are_accepted(path):
    checkpoint = make()
    checkpoint.probes["train"][0, :2] = torch.tensor([0, V - 1])
    save(checkpoint, path, overwrite=False)
    assert load(path).probes["train"][0, :2].tolist() == [0, V - 1]
