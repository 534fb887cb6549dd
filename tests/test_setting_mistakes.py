"""Mistakes in settings: one line that says where and what."""

import dataclasses
import datetime

import pytest

from newllm_core.config import (
    Config,
    option,
)
from newllm_core.errors import ConfigError
from newllm_core.settings import (
    Settings,
    from_assignments,
    from_environment,
    from_file,
    make_section,
    resolve,
)


def refused(action):
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"modle": {"context_dim": 1}}, ["unknown section 'modle'", "'model'"]),
        ({"model": {"contxt_dim": 1}}, ["unknown key model.contxt_dim", "'context_dim'"]),
        ({"model": {"num_layer": 1}}, ["unknown key model.num_layer", "'num_layers'"]),
        (
            {"phase1": {"max_iterations": "ten"}},
            ["phase1.max_iterations is 'ten'", "a whole number"],
        ),
        ({"phase1": {"max_iterations": 2.5}}, ["phase1.max_iterations is 2.5", "a whole number"]),
        ({"phase1": {"max_iterations": True}}, ["phase1.max_iterations is true", "a whole number"]),
        ({"phase1": {"max_iterations": None}}, ["phase1.max_iterations is None", "a whole number"]),
        ({"phase1": {"learning_rate": "fast"}}, ["phase1.learning_rate is 'fast'", "a number"]),
        ({"phase1": {"learning_rate": "nan"}}, ["phase1.learning_rate is nan", "finite"]),
        ({"phase1": {"learning_rate": False}}, ["phase1.learning_rate is false", "a number"]),
        ({"phase2": {"freeze_context": "maybe"}}, ["phase2.freeze_context", "true or false"]),
        ({"phase2": {"freeze_context": 1}}, ["phase2.freeze_context is 1", "true or false"]),
        ({"data": {"source": 5}}, ["data.source is 5", "text"]),
        ({"model": {"context_dim": {"x": 5}}}, ["model.context_dim", "a whole number"]),
        ({"model": {"context_dim": 0}}, ["model.context_dim is 0", "at least 1"]),
        ({"gate": {"min_norm": "-1.5"}}, ["gate.min_norm is -1.5", "at least 0"]),
        ({"cell": 3}, ["cell is 3", "section"]),
        ({"objective": [1]}, ["objective is [1]", "section"]),
        ({"model": {"layer_structure": "1,x"}}, ["model.layer_structure is 'x'", "a whole number"]),
        ({"model": {"layer_structure": "2,0"}}, ["model.layer_structure is 0", "at least 1"]),
        ({"model": {"layer_structure": 2}}, ["model.layer_structure is 2", "list"]),
        ({"model": {"layer_structure": [1.5]}}, ["model.layer_structure is 1.5", "a whole number"]),
        ({"model": {"layer_structure": ""}}, ["model.layer_structure is empty"]),
        ({"model": {"num_layers": 0}}, ["model.num_layers is 0", "from 1"]),
        ({"model": {"num_layers": 10**9}}, ["model.num_layers is 1000000000", "to 1,000"]),
        ({"model": {"layer_structure": [900, 900]}}, ["model.layer_structure", "1,000 layers"]),
        ({"model": {"context_dim": 10**9}}, ["model.context_dim", "at most"]),
        ({"model": {"context_dim": 1 << 20_000}}, ["model.context_dim", "63 bits"]),
        ({"model": {"context_dim": 10**400}}, ["model.context_dim", "63 bits"]),
        ({"model": {"context_dim": "9" * 400}}, ["model.context_dim", "63 bits"]),
        ({"model": {"context_dim": "9" * 5000}}, ["model.context_dim is '999", "a whole number"]),
        ({"phase1": {"learning_rate": 10**400}}, ["phase1.learning_rate", "63 bits"]),
        ({"phase1": {"learning_rate": "1e999"}}, ["phase1.learning_rate is inf", "finite"]),
        ({"model": {"num_layers": "two"}}, ["model.num_layers is 'two'", "a whole number"]),
        ({"model": {"update": "lstm"}}, ["unknown key model.update", "context_dim"]),
        ({"run": 5}, ["run is 5", "section"]),
        ({"regularizer": "ema-variance"}, ["regularizer is 'ema-variance'", "section"]),
        ({"source": 5}, ["source is 5", "section"]),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(layer, words):
    message = refused(lambda: resolve(layer))
    assert all(word in message for word in words), message


def test_a_near_preset_is_suggested():
    message = refused(lambda: from_file("preset:cvpf-16"))
    assert "unknown preset 'cvpf-16'; did you mean 'cvfp-16'?" in message
    assert "reconstruction" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such config file"]),
        (b"[model\ncontext_dim = 1", ["not TOML", "line 1"]),
        (b"[model]\nembed_dim = 1\nembed_dim = 2", ["not TOML"]),
        (b"\xff\xfe", ["not UTF-8", "offset 0"]),
        (b"[model]\ncontxt_dim = 1", ["unknown key model.contxt_dim", "'context_dim'"]),
        (b"[model]\ncontext_dim = 'big'", ["model.context_dim is 'big': expected a whole number"]),
        (b"[run]\nkernels = 'of'", ["run.kernels is 'of': choose one of"]),
        (b"context_dim = 1", ["unknown section 'context_dim'"]),
        (b"model = 3", ["model is 3", "section"]),
        (b"regularizer = 'none'", ["regularizer is 'none'", "section"]),
        (b"[model]\nnum_layers = 'x'", ["model.num_layers is 'x'"]),
        (b"[model]\ncontext_dim = " + b"9" * 5000, ["not TOML", "4300 digits"]),
        (b"x = " + b"[" * 5000, ["not TOML"]),
        (b".".join([b"a"] * 5000) + b" = 1", ["no config file", "dots"]),
        (b"# " + b"x" * 70_000, ["no config file", "65,536 bytes"]),
        (b'["a\\nb"]\nx = 1', ["unknown section"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, words):
    path = tmp_path / "my-settings.toml"
    if content is not None:
        path.write_bytes(content)
    message = refused(lambda: from_file(str(path)))
    assert all(word in message for word in [*words, "my-settings.toml"]), message


def test_a_folder_is_no_config_file(tmp_path):
    assert str(tmp_path) in refused(lambda: from_file(str(tmp_path)))


def test_an_empty_file_sets_nothing(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert resolve(from_file(str(path))) == Config()


def test_the_environment_is_read_by_prefix_and_checked():
    variables = {
        "PATH": "/bin",
        "NEWLLM_PLUGINS": "x",
        "NEWLLM_DEBUG": "1",
        "NEWLLM_PHASE1_MAX_ITERATIONS": "7",
        "NEWLLM_REGULARIZER_MOMENTUM": "0.5",
    }
    layer = from_environment(variables)
    assert layer == {"phase1": {"max_iterations": "7"}, "regularizer": {"momentum": "0.5"}}
    for name in ("NEWLLM_PHASE1_MAX_ITERATION", "NEWLLM_PHASE9_EPOCHS", "NEWLLM_MODEL"):
        message = refused(lambda name=name: from_environment({name: "1"}))
        assert f"environment variable {name}: unknown" in message
    for name, value in (("RUN_KERNELS", "of"), ("MODEL_CONTEXT_DIM", "big"), ("RUN_SEED", "-1")):
        message = refused(lambda given={f"NEWLLM_{name}": value}: from_environment(given))
        assert f"environment variable NEWLLM_{name}: {name.partition('_')[0].lower()}." in message


@pytest.mark.parametrize("text", ["model.context_dim", "context_dim=3", "=3", "model.=3", ""])
def test_an_assignment_without_its_parts(text):
    assert f"--set {text!r}: write section.key=value" in refused(lambda: from_assignments([text]))


def test_assignments():
    texts = ["data.input=a=b", "model.init_std=0.25", "model.init_std=0.25", "source.x=1"]
    layer = from_assignments(texts)
    assert layer["data"] == {"input": "a=b"}
    assert resolve(layer).model.init_std == 0.25
    assert layer["source"] == {"x": "1"}
    assert "unknown key model.x" in refused(lambda: from_assignments(["model.x=1"]))


LAYERS = {"model": {"num_layers": "3", "layer_structure": "2,3"}}


@pytest.mark.parametrize(
    "action",
    [
        lambda: Settings(None, LAYERS),
        lambda: Settings(None, {"model": {"layer_structure": "2,3", "num_layers": "3"}}),
        lambda: Settings(None, from_assignments(["model.num_layers=3"]), LAYERS),
        lambda: from_assignments(["model.num_layers=3", "model.layer_structure=2,3"]),
        lambda: from_environment(
            {"NEWLLM_MODEL_NUM_LAYERS": "3", "NEWLLM_MODEL_LAYER_STRUCTURE": "2,3"}
        ),
        lambda: Settings.of_keywords(("model",), {"num_layers": 3, "layer_structure": (2, 3)}),
        lambda: Settings.of_keywords(
            ("model",), {"num_layers": 3, "settings": {"model": {"layer_structure": [2, 3]}}}
        ),
        lambda: resolve(LAYERS),
    ],
)
def test_a_shorthand_and_its_long_form_in_one_place_exclude_each_other(action):
    message = refused(action)
    assert "model.layer_structure is said twice" in message
    assert "1,1,1" in message
    assert "2,3" in message
    assert "model.num_layers is short for it" in message


def test_a_shorthand_in_a_file_too(tmp_path):
    path = tmp_path / "both.toml"
    path.write_text("[model]\nlayer_structure = [2, 3]\nnum_layers = 3\n")
    assert "both.toml: model.layer_structure is said twice" in refused(lambda: from_file(str(path)))


def test_one_key_is_said_once_in_one_place_and_the_higher_place_wins(monkeypatch):
    assert "phase1.max_iterations is said twice, as '3' and as '4'" in refused(
        lambda: from_assignments(["phase1.max_iterations=3", "phase1.max_iterations=4"])
    )
    set_off = from_assignments(["phase2.freeze_context=false", "cell.depth=2"])
    assert "phase2.freeze_context is said twice, as 'false' and as 'true'" in refused(
        lambda: Settings(None, set_off, {"phase2": {"freeze_context": True}})
    )
    # The same twice is no contradiction, whoever writes it.
    same = {"phase2": {"freeze_context": False}, "model": {"num_layers": "2"}}
    again = from_assignments(["model.layer_structure=1,1"])
    found = Settings(None, set_off, same, again).resolve()
    assert (found.phase2.freeze_context, found.model.layer_structure) == (False, (1, 1))
    given = Settings(None, set_off)
    assert "cell.depth is said twice" in refused(lambda: given.add({"cell": {"depth": "3"}}))
    monkeypatch.setenv("NEWLLM_MODEL_NUM_LAYERS", "4")
    above = Settings("preset:cvfp-256", {"model": {"layer_structure": "2,3"}})
    assert above.resolve().model.layer_structure == (2, 3)
    assert Settings("preset:tiny").resolve().model.layer_structure == (1, 1, 1, 1)


@dataclasses.dataclass(frozen=True)
class PluginOptions:
    momentum: float = option(0.9, "Share of the past.", low=0, high=1)
    names: tuple[str, ...] = option(("a",), "Some names.")
    form: str = option("x", "A choice.", choices=("x", "y"))


def test_options_of_plugins_are_converted_and_checked_alike():
    made = make_section(PluginOptions, "regularizer", {"momentum": "0.5", "names": "b,c"})
    assert made == PluginOptions(momentum=0.5, names=("b", "c"))
    for values, words in (
        ({"momentun": "1"}, "unknown key regularizer.momentun; did you mean 'momentum'?"),
        ({"momentum": "2"}, "regularizer.momentum is 2.0: at most 1"),
        ({"momentum": "x"}, "regularizer.momentum is 'x': expected a number"),
        ({"momentum": True}, "regularizer.momentum is true: expected a number"),
        ({"form": datetime.date(2020, 1, 2)}, "regularizer.form is 2020-01-02: expected text"),
        ({"form": "z"}, "regularizer.form is 'z': choose one of x, y"),
    ):
        message = refused(lambda values=values: make_section(PluginOptions, "regularizer", values))
        assert words in message
