"""Resolve a `Config`: defaults < preset or file < environment < flags.

Every layer is a mapping `{section: {key: value}}`. Text (from the environment or `--set`) is turned
into the type of its field. An unknown section or key is an error that names a near one.
"""

import dataclasses
import difflib
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from newllm_core.config import MOST_LAYERS, PLUGIN_SECTIONS, SECTIONS, Config, check_bounds
from newllm_core.errors import ConfigError, one_line, reason
from newllm_core.files.from_strangers import read_text
from newllm_core.files.strict_json import INTEGER_BITS, parse_json

Layer = Mapping[str, Mapping[str, Any]]
ENVIRONMENT_PREFIX = "NEWLLM_"
NOT_SETTINGS = ("NEWLLM_PLUGINS", "NEWLLM_DEBUG")
PRESET_PREFIX = "preset:"
LARGEST_FILE = 1 << 16
# tomllib takes time that grows with the square of the parts of a dotted key.
MOST_DOTS = 2000
LONGEST_VALUE = 80


class Settings:
    """The layers that the user gave: file, environment, flags. Lowest first."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    @classmethod
    def of(cls, file: str | None, *given: Layer) -> "Settings":
        """Put `given`, later ones winning, on the environment, and that on a file or preset."""
        layers = [] if file is None else [from_file(file)]
        # One layer: options count for the plugin that is chosen anywhere beside them.
        return cls([*layers, combined(from_environment(), *given)])

    @classmethod
    def of_keywords(
        cls, sections: Iterable[str], keywords: Mapping[str, Any], without: Iterable[str] = ()
    ) -> "Settings":
        """Read keyword arguments as the command line reads its flags.

        Args:
            sections: those whose keys are keywords, as they are flags of the command.
            keywords: keys and values; `preset` or `config` as `--config` means them, and
                `settings`, `{section: {key: value}}`, for everything else.
            without: keys that are none here.

        Raises:
            ConfigError: an unknown keyword, section, key or preset, or a bad value.
        """
        given = dict(keywords)
        file, preset = given.pop("config", None), given.pop("preset", None)
        if file is not None and preset is not None:
            raise ConfigError("config and preset exclude each other: give one of them")
        others = given.pop("settings", None) or {}
        known: dict[str, str] = {}
        for section in sections:
            names = [spec.name for spec in dataclasses.fields(SECTIONS[section])]
            names += getattr(SECTIONS[section], "SHORTHANDS", {})
            known |= {name: section for name in names if name not in without}
        flags: dict[str, dict[str, Any]] = {}
        for key, value in given.items():
            if key not in known:
                own = ["config", "preset", "settings"]
                raise ConfigError(_unknown(f"keyword {key}", key, [*known, *own]))
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            flags.setdefault(known[key], {})[key] = plain
        name = file if preset is None else PRESET_PREFIX + preset
        return cls.of(None if name is None else os.fspath(name), others, flags)

    def resolve(self, base: Layer | None = None) -> Config:
        """Make the config, on top of `base` (a checkpoint's own) or the defaults.

        Raises:
            ConfigError: an unknown key or a bad value.
        """
        return resolve(base or {}, *self.layers)

    def sets(self, section: str, key: str) -> bool:
        """Say whether any layer gives `section.key`."""
        return any(key in layer.get(section, {}) for layer in self.layers)


def resolve(*layers: Layer) -> Config:
    """Return the config that `layers` give, later ones winning key by key."""
    merged: dict[str, dict[str, Any]] = {}
    options: list[tuple[str, str, dict[str, Any]]] = []  # section, plugin named so far, options
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise ConfigError(f"the config is {shown(layer)}: it holds sections")
        checked = {section: _checked(section, values) for section, values in layer.items()}
        for section, values in checked.items():
            if section not in PLUGIN_SECTIONS:
                merged.setdefault(section, {}).update(values)
        for section in PLUGIN_SECTIONS:
            options.append((section, _plugin(section, merged), checked.get(section, {})))
    for section, name, values in options:
        # Options belong to the plugin they were given for: a preset's to the preset's objective.
        if name == _plugin(section, merged):
            merged.setdefault(section, {}).update(values)
    sections: dict[str, Any] = {
        name: make_section(SECTIONS[name], name, merged.get(name, {})) for name in SECTIONS
    }
    sections |= {name: merged.get(name, {}) for name in PLUGIN_SECTIONS}
    return Config(**sections)


def _plugin(section: str, merged: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the plugin whose options `section` holds."""
    chooser, key = PLUGIN_SECTIONS[section]
    return str(merged.get(chooser, {}).get(key, getattr(SECTIONS[chooser], key)))


def make_section(section_type: type[Any], name: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return a section dataclass (built in or a plugin's options) from checked, converted `values`.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or out of bounds.
    """
    hints = typing.get_type_hints(section_type)
    known = [spec.name for spec in dataclasses.fields(section_type)]
    for key in values:
        if key not in known:
            raise ConfigError(_unknown(f"key {name}.{key}", key, known))
    converted = {key: convert(value, hints[key], f"{name}.{key}") for key, value in values.items()}
    section = section_type(**converted)
    check_bounds(section, name)
    return section


def convert(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401 - any TOML value, any annotation
    """Return `value` as the type `hint`; text is parsed, other values must already fit."""
    if isinstance(value, int) and abs(value) >> INTEGER_BITS:
        raise ConfigError(f"{where} is a number of more than {INTEGER_BITS} bits")
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        return convert(value, inner[0], where)
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if isinstance(value, str):
            value = [part for part in value.strip("[]() ").split(",") if part]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {shown(value)}: give a list such as 1,1")
        return tuple(convert(part, element, where) for part in value)
    if isinstance(value, str) and hint is not str:
        parsed = _parse(value.strip(), hint, where)
        return convert(parsed, int, where) if hint is int else parsed
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {shown(value)}: expected {hint.__name__}")
    return value


def from_file(name: str) -> Layer:
    """Return the layer of a TOML file, or of a shipped preset for `preset:NAME`."""
    if name.startswith(PRESET_PREFIX):
        return _from_preset(name.removeprefix(PRESET_PREFIX))
    text = read_text(name, "config file", limit=LARGEST_FILE, error=ConfigError)
    return _from_toml(text, name)


def preset_names() -> list[str]:
    """Return the shipped presets."""
    found = files("newllm_core") / "presets"
    return sorted(item.name.removesuffix(".toml") for item in found.iterdir())


def from_environment(environment: Mapping[str, str] = os.environ) -> Layer:
    """Return the layer of variables such as `NEWLLM_PHASE1_MAX_ITERATIONS`."""
    layer: dict[str, dict[str, Any]] = {}
    for name, value in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        try:
            _checked(section, {key: value})
        except ConfigError as error:
            raise ConfigError(f"environment variable {name}: {error}") from error
        layer.setdefault(section, {})[key] = value
    return layer


def from_assignments(assignments: Iterable[str]) -> Layer:
    """Return the layer of `--set section.key=value` arguments."""
    layer: dict[str, dict[str, Any]] = {}
    for text in assignments:
        target, equals, value = text.partition("=")
        section, dot, key = target.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"--set {text!r}: write section.key=value")
        _checked(section, {key: value})
        layer.setdefault(section, {})[key] = value
    return layer


def combined(*layers: Layer) -> Layer:
    """Put layers together, later ones winning key by key."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(_checked(section, values))
    return merged


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Return plain nested dictionaries, fit for JSON; `resolve` reads them back."""
    return {
        spec.name: (
            dict(getattr(config, spec.name))
            if spec.name in PLUGIN_SECTIONS
            else dataclasses.asdict(getattr(config, spec.name))
        )
        for spec in dataclasses.fields(config)
    }


def _checked(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with shorthands written out; unknown sections and keys raise."""
    if section not in SECTIONS and section not in PLUGIN_SECTIONS:
        raise ConfigError(_unknown(f"section {section!r}", section, [*SECTIONS, *PLUGIN_SECTIONS]))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{section} is {shown(values)}: it is a section and holds keys")
    if section in PLUGIN_SECTIONS:
        return dict(values)
    known = [spec.name for spec in dataclasses.fields(SECTIONS[section])]
    shorthands = getattr(SECTIONS[section], "SHORTHANDS", {})
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key in shorthands:
            count = convert(value, int, f"{section}.{key}")
            if not 1 <= count <= MOST_LAYERS:
                raise ConfigError(f"{section}.{key} is {count}: from 1 to {MOST_LAYERS:,}")
            checked[shorthands[key]] = [1] * count
        elif key in known:
            checked[key] = value
        else:
            raise ConfigError(_unknown(f"key {section}.{key}", key, [*known, *shorthands]))
    return checked


def shown(value: object) -> str:
    """Return a value that somebody gave, short enough for a message."""
    return one_line(repr(value), LONGEST_VALUE)


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what}{hint} (known: {', '.join(known)})"


def _parse(text: str, hint: type[Any], where: str) -> Any:  # noqa: ANN401
    if hint is bool:
        truth = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in truth:
            raise ConfigError(f"{where} is {shown(text)}: expected true or false")
        return truth[text.lower()]
    if hint in (int, float):
        try:
            return hint(text.replace("_", ""))
        except ValueError as error:
            raise ConfigError(f"{where} is {shown(text)}: expected {hint.__name__}") from error
    try:
        return parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{where} is {shown(text)}: expected {hint.__name__}") from error


def _from_preset(name: str) -> Layer:
    resource = files("newllm_core") / "presets" / f"{name}.toml"
    if name not in preset_names():
        raise ConfigError(_unknown(f"preset {name!r}", name, preset_names()))
    return _from_toml(resource.read_text(encoding="utf-8"), f"preset {name}")


def _from_toml(text: str, where: str) -> Layer:
    if text.count(".") > MOST_DOTS:
        raise ConfigError(f"{where} is no config file: it has more than {MOST_DOTS:,} dots")
    try:
        layer = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
        raise ConfigError(f"{where} is not TOML: {reason(error)}") from error
    for section, values in layer.items():
        try:
            _checked(section, values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return layer
