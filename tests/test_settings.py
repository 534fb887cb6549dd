"""Where a setting comes from, and which source wins."""

import dataclasses
import itertools
import json

import pytest

from newllm_core.config import (
    PLUGIN_SECTIONS,
    SECTIONS,
    Config,
    ModelConfig,
    Phase1Config,
)
from newllm_core.model.language_model import LanguageModel
from newllm_core.settings import (
    combined,
    from_assignments,
    from_environment,
    from_file,
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
        (1, "mogrifier", 512, 2 * 512 * 1536 + 512 * 512, "language-model-hour"),
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
