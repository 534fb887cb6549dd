"""Resolve a `Config`: defaults < preset or file < environment < flags.

Every layer is a mapping `{section: {key: value}}`. Text (from the environment or `--set`) is turned
into the type of its field. An unknown section or key is an error that names a near one, and so are
two values for one key in the same place: a file, the environment, the command line.
"""

import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from newllm_core.config import PLUGIN_SECTIONS, SECTIONS, Config
from newllm_core.config.model import MOST_LAYERS
from newllm_core.config.option import check_bounds
from newllm_core.config.values import convert, plain, shown, text_of, unknown
from newllm_core.errors import ConfigError, UserError, reason
from newllm_core.files.from_strangers import read_text

Layer = Mapping[str, Mapping[str, Any]]
ENVIRONMENT_PREFIX = "NEWLLM_"
NOT_SETTINGS = ("NEWLLM_PLUGINS", "NEWLLM_DEBUG")
PRESET_PREFIX = "preset:"
LARGEST_FILE = 1 << 16
# tomllib takes time that grows with the square of the parts of a dotted key.
MOST_DOTS = 2000


class Settings:
    """The `layers` that the user gave, lowest first: a file or preset; environment and flags.

    Each of the layers `given` comes from one source.
    """

    def __init__(self, file: str | None, *given: Layer) -> None:
        self.file = file
        self.layers = [] if file is None else [from_file(file)]
        self.flags = agreeing(*given)
        # One layer: options count for the plugin that is chosen anywhere beside them.
        self.layers.append(combined(from_environment(), self.flags))

    def add(self, given: Layer) -> None:
        """Add flags that are no settings by name; `ConfigError` if others contradict them."""
        self.flags = agreeing(self.flags, given)
        self.layers[-1] = combined(self.layers[-1], given)

    @classmethod
    def of_keywords(
        cls, sections: Iterable[str], keywords: Mapping[str, Any], without: Iterable[str] = ()
    ) -> "Settings":
        """Read keyword arguments as the command line reads its flags.

        Keys of `sections`, but those in `without`, are keywords, as they are flags of the command;
        `preset` and `config` are what `--config` means, and `settings`, `{section: {key: value}}`,
        is for everything else. `ConfigError` for an unknown keyword, section, key or preset.
        A `Settings` as `settings`, and nothing else, is what it is.
        """
        if list(keywords) == ["settings"] and isinstance(keywords["settings"], Settings):
            return keywords["settings"]
        given = dict(keywords)
        file, preset = given.pop("config", None), given.pop("preset", None)
        if file is not None and preset is not None:
            raise ConfigError("config and preset exclude each other: give one of them")
        if not isinstance(file, str | os.PathLike | None):
            raise ConfigError(f"config is {shown(file)}: expected a path; settings takes a dict")
        others = given.pop("settings", None) or {}
        if not isinstance(others, Mapping):
            raise ConfigError(f"settings is {shown(others)}: write {{section: {{key: value}}}}")
        known: dict[str, str] = {}
        for section in sections:
            names = [spec.name for spec in dataclasses.fields(SECTIONS[section])]
            names += SECTIONS[section].SHORTHANDS
            known |= {name: section for name in names if name not in without}
        flags: dict[str, dict[str, Any]] = {}
        for key, value in given.items():
            if key not in known:
                own = ["config", "preset", "settings"]
                raise ConfigError(unknown(f"keyword {key}", key, [*known, *own]))
            flags.setdefault(known[key], {})[key] = value
        name = file if preset is None else f"{PRESET_PREFIX}{preset}"
        return cls(None if name is None else os.fspath(name), others, flags)

    def resolve(self, base: Layer | None = None) -> Config:
        """Make the config, on top of `base` (a checkpoint's own) or the defaults."""
        return resolve(base or {}, *self.layers)

    def sets(self, section: str, key: str) -> bool:
        """Say whether any layer gives `section.key`."""
        return any(key in layer.get(section, {}) for layer in self.layers)

    def place_of(self, section: str, key: str) -> str:
        """Return how an error about `section.key` begins: whence it is, "" for a flag."""
        if key in self.flags.get(section, {}):
            return ""
        if key in from_environment().get(section, {}):
            name = f"{ENVIRONMENT_PREFIX}{section}_{key}".upper()
            return f"environment variable {name}: "
        return f"{self.file}: " if self.file is not None and self.sets(section, key) else ""


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


def make_section(
    section_type: type[Any], name: str, values: Mapping[str, Any], plugin: str = ""
) -> Any:  # noqa: ANN401
    """Return a section dataclass (built in or the options of a `plugin`) from `values`.

    Raises `ConfigError` for an unknown key, or a value of the wrong type or out of bounds.
    """
    hints = typing.get_type_hints(section_type)
    known = [spec.name for spec in dataclasses.fields(section_type)]
    for key in values:
        if not known:
            raise ConfigError(
                f"{name}.{key}: the {name} that is chosen has no options, leave it out"
            )
        if key not in known:
            whose = f" of {name} {plugin!r}" if plugin else ""
            raise ConfigError(unknown(f"key {name}.{key}{whose}", key, known))
    converted = {key: convert(value, hints[key], f"{name}.{key}") for key, value in values.items()}
    mistake = Exception if plugin else ValueError  # options may check themselves
    try:
        section = section_type(**converted)
    except UserError:
        raise
    except mistake as error:
        whose = f"{name} {plugin!r}" if plugin else name
        is_clear = isinstance(error, ValueError) or not str(error)
        kind = "" if is_clear else f"{type(error).__name__}: "
        raise ConfigError(f"{whose} refuses its options: {kind}{reason(error)}") from error
    check_bounds(section, name)
    return section


def from_file(name: str) -> Layer:
    """Return the layer of a TOML file, or of a shipped preset for `preset:NAME`."""
    if not name.startswith(PRESET_PREFIX):
        near = difflib.get_close_matches(name, preset_names(), n=1)
        if near and not os.path.exists(name):
            wanted = PRESET_PREFIX + near[0]
            raise ConfigError(f"no such config file: {name}; did you mean {wanted}?")
        return _from_toml(
            read_text(name, "config file", limit=LARGEST_FILE, error=ConfigError), name
        )
    preset = name.removeprefix(PRESET_PREFIX)
    if preset not in preset_names():
        raise ConfigError(unknown(f"preset {preset!r}", preset, preset_names()))
    file = files("newllm_core") / "presets" / f"{preset}.toml"
    return _from_toml(file.read_text(encoding="utf-8"), f"preset {preset}")


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
            _check_values(section, {key: value})
            layer = agreeing(layer, {section: {key: value}})
        except ConfigError as error:
            raise ConfigError(f"environment variable {name}: {error}") from error
    return layer


def from_assignments(assignments: Iterable[str]) -> Layer:
    """Return the layer of `--set section.key=value` arguments."""
    layer: dict[str, dict[str, Any]] = {}
    for text in assignments:
        target, equals, value = text.partition("=")
        section, dot, key = target.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"--set {text!r}: write section.key=value")
        layer = agreeing(layer, {section: {key: value}})
    return layer


def combined(*layers: Layer) -> Layer:
    """Put layers together, later ones winning key by key."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(_checked(section, values))
    return merged


def agreeing(*layers: Layer) -> dict[str, dict[str, Any]]:
    """Put layers of one place together; `ConfigError` if two give one key different values."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            for key, value in _checked(section, values).items():
                _set(merged.setdefault(section, {}), section, key, value)
    return merged


def _set(values: dict[str, Any], section: str, key: str, value: Any) -> None:  # noqa: ANN401
    if key in values and text_of(values[key]) != text_of(value):
        raise ConfigError(
            f"{section}.{key} is said twice, as {shown(text_of(values[key]))} and as "
            f"{shown(text_of(value))}: leave one out{_hint(section, key)}"
        )
    values[key] = value


def _hint(section: str, key: str) -> str:
    shorthands = {} if section in PLUGIN_SECTIONS else SECTIONS[section].SHORTHANDS
    short = [f"{section}.{name}" for name, target in shorthands.items() if target == key]
    return f" ({short[0]} is short for it)" if short else ""


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Return plain nested dictionaries, fit for JSON; `resolve` reads them back."""
    return dataclasses.asdict(config)


def _checked(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with shorthands written out; unknown sections and keys raise."""
    if section not in SECTIONS and section not in PLUGIN_SECTIONS:
        raise ConfigError(unknown(f"section {section!r}", section, [*SECTIONS, *PLUGIN_SECTIONS]))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{section} is {shown(values)}: it is a section and holds keys")
    values = {key: plain(value) for key, value in values.items()}
    if section in PLUGIN_SECTIONS:
        return values
    known = [spec.name for spec in dataclasses.fields(SECTIONS[section])]
    shorthands = SECTIONS[section].SHORTHANDS
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key in shorthands:
            count = convert(value, int, f"{section}.{key}")
            if not 1 <= count <= MOST_LAYERS:
                raise ConfigError(f"{section}.{key} is {count}: from 1 to {MOST_LAYERS:,}")
            _set(checked, section, shorthands[key], [1] * count)
        elif key in known:
            _set(checked, section, key, value)
        else:
            raise ConfigError(unknown(f"key {section}.{key}", key, [*known, *shorthands]))
    return checked


def _check_values(section: str, values: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a place gives names or values that no other place makes right."""
    checked = _checked(section, values)
    if section in SECTIONS:
        make_section(SECTIONS[section], section, checked)


def _from_toml(text: str, where: str) -> Layer:
    if text.count(".") > MOST_DOTS:
        raise ConfigError(f"{where} is no config file: it has more than {MOST_DOTS:,} dots")
    try:
        layer = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
        raise ConfigError(f"{where} is not TOML: {reason(error)}") from error
    for section, values in layer.items():
        try:
            _check_values(section, values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return layer
