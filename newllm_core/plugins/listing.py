"""Every plugin with what is known of it, without importing any; or with each checked."""

from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from newllm_core.errors import ConfigError, PluginError
from newllm_core.plugins.files import used_files
from newllm_core.plugins.guard import stdout_to_stderr
from newllm_core.plugins.kinds import ConformanceError
from newllm_core.plugins.locate import ClassSource, ModuleMissing, find_class
from newllm_core.plugins.plugin import Plugin
from newllm_core.plugins.registry import REGISTRIES, Registry

AVAILABLE, OK, BROKEN = "available", "ok", "broken"
CLASH, IGNORED, NOT_ALLOWED = "clash", "ignored", "not allowed"
PROBLEMS = (BROKEN, CLASH, IGNORED)


@dataclass(frozen=True)
class Entry:
    """One claim of one name.

    Attributes:
        name: what users ask for.
        kind: cell, objective, regularizer, data source, recurrence or command.
        distribution: who installed it.
        version: of the distribution.
        target: `module:attribute`.
        description: first line of the class's docstring, or of the distribution's summary.
        status: available (not tried), ok (tried), broken, clash, ignored or not allowed.
        problem: one line that names the plugin, "" without one.
        file: where the class is written, if that can be told without importing it.
        line: of the class statement in `file`.
    """

    name: str
    kind: str
    distribution: str
    version: str
    target: str
    description: str
    status: str
    problem: str = ""
    file: str | None = None
    line: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)


def list_plugins(*, check: bool = False) -> list[Entry]:
    """Return every claim of every name; `check` imports and tries each that may be used."""
    return [
        _entry(registry, plugin, claimants, check=check)
        for registry in REGISTRIES
        for claimants in registry.plugins().values()
        for plugin in claimants
    ]


def registries_with(name: str) -> list[Registry]:
    """Return the registries that know `name`.

    Raises:
        ConfigError: none does.
    """
    found = [registry for registry in REGISTRIES if name in registry.plugins()]
    if not found:
        known = ", ".join(name for registry in REGISTRIES for name in registry.plugins())
        raise ConfigError(f"no plugin is named {name!r} (known: {known})")
    return found


def class_source(registry: Registry, plugin: Plugin) -> ClassSource | None:
    """Return where a plugin is written, if that can be told without importing it.

    Raises:
        ModuleMissing: its module is nowhere.
    """
    if plugin.file is not None:
        given = next(
            given
            for given in used_files(registry.kind)
            if (given.path, given.name) == (plugin.file, plugin.name)
        )
        return ClassSource(given.path, given.line, given.summary)
    module, _, attribute = plugin.target.partition(":")
    return find_class(module, attribute)


def try_plugin(registry: Registry, plugin: Plugin) -> None:
    """Import a plugin and hold it to its contract, as far as that needs no input.

    Raises:
        PluginError: one line that names it and the first thing that is wrong.
    """
    found = registry.import_plugin(plugin)
    if not registry.of.check:
        return
    module, _, function = registry.of.check.partition(":")
    try:
        getattr(import_module(module), function)(found)
    except ConformanceError as error:
        first, *others = error.failures
        more = f" (and {len(others)} more)" if others else ""
        what = registry.describe(plugin)
        raise PluginError(f"{what} breaks its contract: {first}{more}") from error


def _entry(registry: Registry, plugin: Plugin, claimants: list[Plugin], *, check: bool) -> Entry:
    entry = Entry(
        name=plugin.name,
        kind=registry.kind,
        distribution=plugin.distribution,
        version=plugin.version,
        target=plugin.target,
        description=plugin.about,
        status=AVAILABLE,
    )
    missing = ""
    try:
        source = class_source(registry, plugin)
    except ModuleMissing as error:
        source, missing = None, f"{registry.describe(plugin)} cannot be imported: {error}"
    if source is not None:
        entry = replace(
            entry,
            description=source.summary or plugin.about,
            file=str(source.path),
            line=source.line,
        )
    if not plugin.is_allowed:
        return replace(entry, status=NOT_ALLOWED)
    allowed = [other for other in claimants if other.is_allowed]
    clash = registry.clash(allowed)
    if clash:
        return replace(entry, status=CLASH, problem=clash)
    if plugin is not allowed[0]:
        lost = dict(zip(allowed[1:], registry.ignored(allowed), strict=True))
        return replace(entry, status=IGNORED, problem=lost[plugin])
    if missing:
        return replace(entry, status=BROKEN, problem=missing)
    if not check:
        return entry
    try:
        with stdout_to_stderr():
            try_plugin(registry, plugin)
    except PluginError as error:
        return replace(entry, status=BROKEN, problem=str(error))
    return replace(entry, status=OK)
