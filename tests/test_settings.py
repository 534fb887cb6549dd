"""Where a setting comes from, and which source wins."""

import dataclasses
import datetime
import itertools
import json

import numpy as np
import pytest
import torch

from newllm_core.config import (
    PLUGIN_SECTIONS,
    SECTIONS,
    Config,
    ModelConfig,
    Phase1Config,
    option,
)
from newllm_core.errors import ConfigError
from newllm_core.model.cells.residual import ResidualOptions
from newllm_core.model.language_model import LanguageModel
from newllm_core.settings import (
    Settings,
    combined,
    from_assignments,
    from_environment,
    from_file,
    make_section,
    preset_names,
    resolve,
    to_dict,
)

SOURCES = ("file", "environment", "set", "flag")
PAIRS = list(itertools.combinations(SOURCES, 2))

# A setting of each type, its default, and four other values as TOML writes them.
SETTINGS = {
    "int": ("phase1.max_iterations", 4, [0, 1, 2, 3]),
    "optional": ("phase1.max_tokens", None, [2, 3, 4, 5]),
    "float": ("model.init_std", 0.1, [0.0, 0.5, 2.0, 3.5]),
    "bool": ("phase2.train_embeddings", True, [False, True, False, True]),
    "text": ("data.source", "python-docs", ["wikitext", "false", "0", "none"]),
    "choice": ("phase1.engine", "parallel", ["online", "streams", "parallel", "online"]),
    "list": ("model.layer_structure", (1, 1), [(3,), (1, 2), (2, 1), (1, 1, 1)]),
    "plugin": ("regularizer.momentum", None, [0.5, 0.25, 0.0, 0.75]),
}


@pytest.fixture
def layer(tmp_path):
    """A layer from one source that holds one setting."""

    def make(source, setting, value):
        section, key = setting.split(".")
        if source == "file":
            path = tmp_path / "settings.toml"
            shown = list(value) if isinstance(value, tuple) else value
            path.write_text(f"[{section}]\n{key} = {json.dumps(shown)}\n")
            return from_file(str(path))
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        text = text.lower() if isinstance(value, bool) else text
        if source == "environment":
            return from_environment({f"NEWLLM_{section}_{key}".upper(): text})
        if source == "set":
            return from_assignments([f"{setting}={text}"])
        # A flag is text unless it is a switch.
        return {section: {key: value if isinstance(value, bool) else text}}

    return make


def get(config, setting):
    section, key = setting.split(".")
    holder = getattr(config, section)
    value = holder.get(key) if isinstance(holder, dict) else getattr(holder, key)
    return float(value) if section == "regularizer" and value is not None else value


def refused(action):
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_beats_the_default(layer, kind, source):
    setting, default, values = SETTINGS[kind]
    assert get(resolve(), setting) == default
    for value in values:
        found = get(resolve(layer(source, setting, value)), setting)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_of_two_sources_the_later_wins(layer, kind, low, high):
    setting, _, values = SETTINGS[kind]
    for first, second in itertools.permutations(values[:2]):
        layers = layer(low, setting, first), layer(high, setting, second)
        assert get(resolve(*layers), setting) == second


def test_all_sources_at_once_win_key_by_key(layer):
    keys = ["max_iterations", "min_iterations", "num_streams", "chunk_steps"]
    layers = []
    for number, source in enumerate(SOURCES):
        values = {}
        for key in keys[number:]:
            values |= layer(source, f"phase1.{key}", 10 + number)["phase1"]
        layers.append({"phase1": values})
    found = resolve(*layers).phase1
    assert [getattr(found, key) for key in keys] == [10, 11, 12, 13]
    assert found.batch_tokens == Phase1Config().batch_tokens


def test_a_preset_is_below_environment_and_flags():
    layers = [from_file("preset:cvfp-16"), from_environment({"NEWLLM_MODEL_EMBED_DIM": "24"})]
    found = resolve(*layers, {"model": {"init_std": "0.4"}}).model
    assert (found.context_dim, found.embed_dim, found.init_std) == (16, 24, 0.4)


@pytest.mark.parametrize(
    ("setting", "written", "expected"),
    [
        ("phase2.train_embeddings", "false", False),
        ("phase2.dropout", "0", 0.0),
        ("phase1.max_iterations", "0", 0),
        ("phase1.dist_reg_weight", "0.0", 0.0),
        ("phase1.min_converged_ratio", "1", 1.0),
        ("data.val_fraction", "0", 0.0),
    ],
)
def test_false_and_zero_in_a_file_are_values(tmp_path, setting, written, expected):
    section, key = setting.split(".")
    path = tmp_path / "settings.toml"
    path.write_text(f"[{section}]\n{key} = {written}\n")
    found = get(resolve(from_file(str(path))), setting)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("nothing", ["none", "None", "null", None])
def test_none_undoes_an_earlier_layer(nothing):
    found = resolve({"phase1": {"max_tokens": 64}}, {"phase1": {"max_tokens": nothing}})
    assert found.phase1.max_tokens is None
    cell = resolve({"cell": {"hidden_dim": 64}}, {"cell": {"hidden_dim": nothing}}).cell
    assert make_section(ResidualOptions, "cell", cell).hidden_dim is None


@pytest.mark.parametrize("name", ["none", "None", "null"])
def test_a_file_may_be_named_like_nothing(name):
    assert resolve({"data": {"input": name}}).data.input == name
    assert resolve({"data": {"input": name}}, {"data": {"input": ""}}).data.input is None


@pytest.mark.parametrize(
    "written", ["2,3", "2, 3", "[2,3]", "[2, 3]", "(2, 3)", " [ 2 , 3 ] ", [2, 3], (2, 3), "2,3,"]
)
def test_every_way_to_write_a_list(written):
    assert resolve({"model": {"layer_structure": written}}).model.layer_structure == (2, 3)


def test_lists_of_one_and_of_numbers():
    assert resolve({"model": {"layer_structure": "4"}}).model.layer_structure == (4,)
    assert resolve({"phase2": {"head_weights": "1,0.5"}}).phase2.head_weights == (1.0, 0.5)
    assert resolve({"phase2": {"head_weights": [1, 2]}}).phase2.head_weights == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("YES", True), ("1", True), ("false", False), ("No", False), ("0", False)],
)
def test_every_way_to_write_a_truth(text, expected):
    assert resolve({"phase2": {"freeze_context": text}}).phase2.freeze_context is expected


@pytest.mark.parametrize("library", [np, torch])
def test_numbers_and_arrays_of_libraries(library):
    one, half = library.ones((), dtype=library.int64), library.ones((), dtype=library.float32) / 2
    model = {"context_dim": one, "layer_structure": library.ones(2, dtype=library.int64)}
    made = resolve({"model": model, "phase1": {"learning_rate": half}, "cell": {"depth": one}})
    assert (made.model.context_dim, made.model.layer_structure) == (1, (1, 1))
    assert (made.phase1.learning_rate, made.cell) == (0.5, {"depth": 1})
    assert type(made.cell["depth"]) is type(made.model.context_dim) is int
    with pytest.raises(ConfigError, match=r"phase1.max_iterations is 0.5: expected a"):
        resolve({"phase1": {"max_iterations": half}})


def test_numbers_may_be_grouped():
    assert resolve({"phase1": {"max_tokens": "1_000_000"}}).phase1.max_tokens == 1_000_000


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_num_layers_and_layer_structure_override_each_other(layer, low, high):
    count = layer(low, "model.num_layers", 4), layer(high, "model.layer_structure", (2, 3))
    assert resolve(*count).model.layer_structure == (2, 3)
    structure = layer(low, "model.layer_structure", (2, 3)), layer(high, "model.num_layers", 4)
    assert resolve(*structure).model.layer_structure == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("blocks", "cell", "dims", "matrices", "name"),
    [
        (2, "residual", 256, 512 * 512, "tiny"),
        (2, "residual", 16, 32 * 32, "cvfp-16"),
        (4, "residual", 256, 512 * 512, "cvfp-256"),
        (6, "residual", 768, 1536 * 1536, "cvfp-768"),
        (1, "gated", 256, 512 * 512 + 512 * 256, "reconstruction"),
        (1, "mogrifier", 200, 2 * 200 * 600 + 200 * 200, "language-model"),
        (1, "mogrifier", 320, 2 * 320 * 960 + 320 * 320, "language-model-hour"),
    ],
)
def test_presets(blocks, cell, dims, matrices, name):
    config = resolve(from_file(f"preset:{name}"))
    model = LanguageModel(config.model, 3, cell=config.cell)
    assert config.model.layer_structure == (1,) * blocks
    assert config.model.cell == cell
    assert (config.model.context_dim, config.model.embed_dim) == (dims, dims)
    for layer in model.cells():
        assert sum(p.numel() for p in layer.parameters() if p.ndim == 2) == matrices
    assert config.phase1.objective == "reconstruction"
    in_phase2 = name == "reconstruction"
    assert config.phase2.objective == ("reconstruction" if in_phase2 else None)
    assert config.phase2.objective_weight == (1.0 if in_phase2 else None)


def test_every_shipped_preset_resolves():
    names = preset_names()
    assert {"tiny", "cvfp-16", "cvfp-256", "cvfp-768", "reconstruction"} <= set(names)
    for name in names:
        assert isinstance(resolve(from_file(f"preset:{name}")), Config)
    assert resolve(from_file("preset:tiny")) == Config()


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


@pytest.mark.parametrize("name", ["tiny", "cvfp-16", "cvfp-768", "reconstruction"])
def test_a_saved_config_is_read_back(name):
    layers = [
        {"phase2": {"head_weights": "1,2", "train_embeddings": False}, "data": {"input": "x"}},
        {"regularizer": {"momentum": 0.5, "form": "mean"}, "source": {"names": ["a", "b"]}},
        {"model": {"num_layers": 3}, "run": {"seed": 4}},
    ]
    config = resolve(from_file(f"preset:{name}"), *layers)
    saved = json.loads(json.dumps(to_dict(config)))
    assert set(saved) == {*SECTIONS, *PLUGIN_SECTIONS}
    assert resolve(saved) == config
    assert resolve(saved).model == dataclasses.replace(config.model, layer_structure=(1, 1, 1))
    assert config != Config()


LINEAR = {"decoder": "linear", "context_weight": 0.8}


@pytest.mark.parametrize(
    ("layers", "section", "expected"),
    [
        ([{"phase1": {"objective": "cvfp"}}], "objective", {}),
        ([{"phase1": {"objective": "reconstruction"}}], "objective", LINEAR),
        ([{"objective": {"context_weight": 0.1}}], "objective", LINEAR | {"context_weight": 0.1}),
        (
            [{"phase1": {"objective": "cvfp"}, "objective": {"teacher": "same-weights"}}],
            "objective",
            {"teacher": "same-weights"},
        ),
        (
            [{"phase1": {"objective": "cvfp"}}, {"phase1": {"objective": "reconstruction"}}],
            "objective",
            LINEAR,
        ),
        ([{"cell": {"depth": 2}}, {"model": {"cell": "gru"}}], "cell", {}),
        ([{"cell": {"depth": 2}}, {"model": {"cell": "residual"}}], "cell", {"depth": 2}),
        ([{"cell": {"depth": 2}}, {"cell": {"init": "he"}}], "cell", {"depth": 2, "init": "he"}),
        ([{"regularizer": {"momentum": 0.5}}, {"phase1": {"reg": "none"}}], "regularizer", {}),
        (
            [{"source": {"x": 1}}, {"data": {"source": "wikitext"}, "source": {"y": 2}}],
            "source",
            {"y": 2},
        ),
    ],
)
def test_options_go_with_the_plugin_that_they_were_given_for(layers, section, expected):
    config = resolve(from_file("preset:cvfp-16"), *layers)
    assert getattr(config, section) == expected
    assert resolve(to_dict(config)) == config


def test_layers_put_together_hold_options_of_the_plugin_that_any_of_them_names():
    layer = combined({"objective": {"teacher": "same-weights"}}, {"phase1": {"objective": "cvfp"}})
    found = resolve(from_file("preset:cvfp-16"), layer)
    assert found.objective == {"teacher": "same-weights"}
    assert combined({"model": {"num_layers": 2}}, {"model": {"num_layers": 3}}) == {
        "model": {"layer_structure": [1, 1, 1]}
    }


def test_changing_a_resolved_config_leaves_the_layers_alone():
    layer = {"regularizer": {"momentum": 0.5}}
    config = resolve(layer)
    config.regularizer["momentum"] = 1
    assert layer == {"regularizer": {"momentum": 0.5}}
    assert resolve().regularizer == {}
    assert ModelConfig() == resolve().model
