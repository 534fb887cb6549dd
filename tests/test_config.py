"""Every hyperparameter: documented, bounded, immutable."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

from newllm_core.config import (
    PLUGIN_SECTIONS,
    SECTIONS,
    Config,
    ModelConfig,
    Phase2Config,
)
from newllm_core.errors import ConfigError
from newllm_core.settings import preset_names

FIELDS = [
    pytest.param(section, spec, id=f"{section}.{spec.name}")
    for section, section_type in SECTIONS.items()
    for spec in dataclasses.fields(section_type)
]
BOUNDS = [
    pytest.param(section, spec, sign, bound, id=f"{section}.{spec.name}-{bound:g}")
    for section, section_type in SECTIONS.items()
    for spec in dataclasses.fields(section_type)
    for sign, bound in ((-1, spec.metadata["low"]), (1, spec.metadata["high"]))
    if bound is not None
]


def make(section, name, value):
    return SECTIONS[section](**{name: value})


def test_sections():
    steps = ["data", "model", "phase1", "phase2", "gate", "healthy", "analysis", "generation"]
    assert list(SECTIONS) == ["run", *steps]
    assert list(PLUGIN_SECTIONS) == ["cell", "objective", "regularizer", "source"]
    for section, key in PLUGIN_SECTIONS.values():
        assert isinstance(getattr(getattr(Config(), section), key), str)
    assert [section_type.SECTION for section_type in SECTIONS.values()] == list(SECTIONS)
    assert [spec.name for spec in dataclasses.fields(Config)] == [*SECTIONS, *PLUGIN_SECTIONS]


@pytest.mark.parametrize(("section", "spec"), FIELDS)
def test_every_field_says_what_it_is(section, spec):
    assert spec.metadata["help"][0].isalnum() or spec.metadata["help"][0] == "λ"
    assert len(spec.metadata["help"]) > 12
    assert spec.default is not dataclasses.MISSING
    choices = spec.metadata["choices"]
    assert not choices or spec.default in choices


@pytest.mark.parametrize(("section", "spec", "sign", "bound"), BOUNDS)
def test_bounds_are_inclusive_and_named(section, spec, sign, bound):
    as_list = isinstance(spec.default, tuple)
    inside, beyond = bound, bound + sign
    # Weights that are all zero are refused for another reason.
    other = (*spec.default, 1.0)[0] if as_list else None
    values = [(inside, other) if as_list else inside, (other, beyond) if as_list else beyond]
    assert getattr(make(section, spec.name, values[0]), spec.name) == values[0]
    with pytest.raises(ConfigError) as caught:
        make(section, spec.name, values[1])
    words = "at least" if sign < 0 else "at most"
    assert f"{section}.{spec.name} is {beyond}: {words}" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value):
    with pytest.raises(ConfigError, match=r"phase1\.learning_rate is .*finite"):
        make("phase1", "learning_rate", value)
    with pytest.raises(ConfigError, match=r"phase2\.head_weights is .*finite"):
        make("phase2", "head_weights", (1.0, value))


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (section, spec.name)
        for section, section_type in SECTIONS.items()
        for spec in dataclasses.fields(section_type)
        if spec.metadata["choices"]
    ],
)
def test_an_unknown_choice_gets_the_list(section, key):
    with pytest.raises(ConfigError) as caught:
        make(section, key, "parallell")
    spec = next(s for s in dataclasses.fields(SECTIONS[section]) if s.name == key)
    message = str(caught.value)
    assert message.startswith(f"{section}.{key} is 'parallell': choose one of ")
    assert all(choice in message for choice in spec.metadata["choices"])


def test_a_config_cannot_be_changed():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.run.seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.run = None
    changed = dataclasses.replace(config.run, seed=7)
    assert (config.run.seed, changed.seed) == (0, 7)
    with pytest.raises(ConfigError, match=r"run\.seed is -1"):
        dataclasses.replace(config.run, seed=-1)


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match=r"model\.layer_structure is empty"):
        ModelConfig(layer_structure=())
    for weights in ((), (0.0, 0.0)):
        with pytest.raises(ConfigError, match=r"phase2\.head_weights"):
            Phase2Config(head_weights=weights)


def test_the_number_of_blocks():
    assert ModelConfig().num_blocks == 2
    assert ModelConfig(layer_structure=(2, 3, 1)).num_blocks == 3


def test_the_readme_names_every_preset():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"`preset:NAME` \((.*?)\)", text, re.DOTALL)[1].split()
    names = [name.strip(",") for name in listed]
    assert sorted(re.sub("^-", "cvfp-", name) for name in names) == preset_names()
