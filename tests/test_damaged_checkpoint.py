"""The one-file format, damaged: refused in one line, whatever is wrong."""

import dataclasses
import json
from itertools import product

import pytest
import torch
from checkpoint_cases import BIAS, SHAPES, V, contents, make, refused
from safetensors.torch import save_file

from newllm_core.checkpoint.format import FORMAT_VERSION, load, save
from newllm_core.checkpoint.metadata import STRUCTURED
from newllm_core.errors import PluginError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "model.safetensors"


@pytest.fixture
def damage(path):
    """Rewrite a good checkpoint after `change(tensors, metadata)`; returns the message it gets."""

    def rewrite(change, **shape):
        save(make(**shape), path, overwrite=True)
        tensors, metadata = contents(path)
        change(tensors, metadata)
        save_file(tensors, path, metadata)
        return refused(path)

    return rewrite


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


def changed(key, content):
    """What puts `content` at a key of the metadata; nothing if it is None."""

    def change(tensors, metadata):
        metadata.pop(key)
        if content is not None:
            metadata[key] = content

    return change


@pytest.mark.parametrize("version", ["1", str(FORMAT_VERSION + 1), "", "one", None])
def test_other_format_versions(damage, version):
    message = damage(changed("format_version", version))
    assert f"format version {version!r}" in message
    assert f"reads {FORMAT_VERSION}" in message


@pytest.mark.parametrize(
    ("key", "content"),
    [
        *product(["config", "model", *STRUCTURED], ["", "{", "not json", None]),
        *product(["config", "model"], ["5", "[]", "null", '"text"', "{}", '{"run": 3}']),
        *product(["tokenizer", "phase"], [None]),
    ],
)
def test_metadata_that_are_missing_or_of_another_kind(damage, key, content):
    assert "damaged checkpoint" in damage(changed(key, content))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("history", {}, "history is no list"),
        ("history", [5], "a part of history is no mapping"),
        ("vacuous_terms", [5], "a part of vacuous_terms is no text"),
        ("gate", [], "gate is no mapping"),
        ("gate", {"train": 5}, "a part of gate is no mapping"),
        ("results", {"validation": []}, "a part of results is no mapping"),
        ("provenance", {"plugins": {}}, "plugins is no list"),
    ],
)
def test_a_hash_that_fits_makes_nothing_of_another_kind_valid(path, name, value, words):
    save(dataclasses.replace(make(), **{name: value}), path, overwrite=False)
    assert words in refused(path)


@pytest.mark.parametrize("shape", ["plain", "tied"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", V + 1),
        ("vocab_size", "many"),
        ("num_heads", 2),
        ("num_heads", 0),
        ("num_heads", None),
        ("seed", "x"),
    ],
)
def test_a_shape_that_does_not_fit_the_tensors(damage, shape, key, value):
    def change(tensors, metadata):
        metadata["model"] = json.dumps(json.loads(metadata["model"]) | {key: value})

    assert "damaged checkpoint" in damage(change, **SHAPES[shape])


def configured(metadata, section, values):
    config = json.loads(metadata["config"])
    config[section] |= values
    metadata["config"] = json.dumps(config)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"context_dim": 12}),
        ("model", {"layer_structure": [1]}),
        ("model", {"no_such_key": 1}),
        ("model", {"cell": "gru"}),
        ("cell", {"hidden_dim": 5}),
        ("cell", {"no_such_key": 1}),
    ],
)
def test_a_config_that_does_not_fit_the_tensors(damage, section, values):
    message = damage(lambda tensors, metadata: configured(metadata, section, values))
    assert "damaged checkpoint" in message


def test_what_another_version_keeps_is_not_called_damage_alone(damage):
    def change(tensors, metadata):
        tensors["counted.slow.weight"] = tensors.pop("memory.read")

    message = damage(change, **SHAPES["memory"])
    assert "another version wrote it, or tensors do not fit: counted.slow.weight" in message


def test_a_cell_that_is_not_there_is_named_and_nothing_is_called_damaged(path):
    save(make(), path, overwrite=False)
    tensors, metadata = contents(path)
    configured(metadata, "model", {"cell": "leaky"})
    save_file(tensors, path, metadata)
    with pytest.raises(PluginError) as caught:
        load(path)
    message = str(caught.value)
    assert "unknown cell 'leaky'" in message
    assert "--plugin FILE.py" in message
    assert str(path) in message
    assert "damaged" not in message
    assert "\n" not in message
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_of_the_objective_that_are_not_finite(damage, value):
    name = "objective.output.weight"
    message = damage(replace(name, with_value(value)), objective="reconstruction")
    assert f"tensor {name} holds values that are not finite" in message


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
