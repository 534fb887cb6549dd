"""Every plugin with what is known of it, without importing any; or with each checked."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from newllm_core.config.values import text_of, unknown
from newllm_core.errors import ConfigError, PluginError
from newllm_core.files.names import quoted
from newllm_core.plugins.guard import ConformanceError, stdout_to_stderr
from newllm_core.plugins.locate import ClassSource, ModuleMissing, find_class, imported_source
from newllm_core.plugins.lookup import TO_FIND_IT, Registry
from newllm_core.plugins.options import describe_options
from newllm_core.plugins.plugin import Plugin, kebab_case
from newllm_core.plugins.registry import REGISTRIES

AVAILABLE, OK, BROKEN = "available", "ok", "broken"
CLASH, IGNORED, NOT_ALLOWED = "clash", "ignored", "not allowed"
PROBLEMS = (BROKEN, CLASH, IGNORED)


@dataclass(frozen=True)
class Entry:
    """One claim of one name: the fields of a `Plugin`, and what else is known of it.

    Attributes:
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
    problem: str
    file: str | None
    line: int | None


def list_plugins(*, check: bool = False) -> list[Entry]:
    """Return every claim of every name; `check` imports and tries each that may be used."""
    return [
        _entry(registry, plugin, claimants, check=check)
        for registry in REGISTRIES
        for claimants in registry.plugins().values()
        for plugin in claimants
    ]


def describe_plugins(name: str) -> list[dict[str, Any]]:
    """Import every plugin of this name, and return what is known of it, fit for JSON.

    Raises:
        ConfigError: there is none.
        PluginError: one cannot be imported.
    """
    found = [registry for registry in REGISTRIES if name in registry.plugins()]
    if not found:
        known = [known for registry in REGISTRIES for known in registry.plugins()]
        raise ConfigError(f"{unknown(f'plugin {name!r}', kebab_case(name), known)}; {TO_FIND_IT}")
    return [_description(registry, registry.find(name)) for registry in found]


def _description(registry: Registry, plugin: Plugin) -> dict[str, Any]:
    found = registry.import_plugin(plugin)
    section = registry.section
    with registry.blame(plugin.name):
        options = describe_options(found.Options) if section else []
    source = imported_source(found)
    example = [registry.usage(plugin.name)]
    if plugin.file:
        example.append(f"--plugin {quoted(plugin.file)}")
    for option in options[:1]:
        if option["default"] is not None:
            setting = f"{section}.{option['name']}={text_of(option['default'])}"
            example.append(f"--set {quoted(setting)}")
    return {
        **plugin.named(),
        "description": source.summary or plugin.about,
        "file": str(source.path),
        "line": source.line,
        "default_weight": getattr(found, "default_weight", None),
        "section": section,
        "options": options,
        "example": " ".join(example),
    }


def try_plugin(registry: Registry, plugin: Plugin) -> None:
    """Import a plugin and hold it to its contract, as far as that needs no input.

    Raises:
        PluginError: one line that names it and the first thing that is wrong.
    """
    found = registry.import_plugin(plugin)
    if not registry.check:
        return
    try:
        resolve_name(registry.check)(found)
    except ConformanceError as error:
        first, *others = error.failures
        more = f" (and {len(others)} more)" if others else ""
        what = registry.describe(plugin)
        raise PluginError(f"{what} breaks its contract: {first}{more}") from error


def _entry(registry: Registry, plugin: Plugin, claimants: list[Plugin], *, check: bool) -> Entry:
    missing = ""
    module, _, attribute = plugin.target.partition(":")
    source: ClassSource | None
    try:
        if plugin.file is not None:
            source = ClassSource(plugin.file, plugin.line, plugin.about)
        else:
            source = find_class(module, attribute)
    except ModuleMissing as error:
        source, missing = None, f"{registry.describe(plugin)} cannot be imported: {error}"
    status, problem = _status(registry, plugin, claimants, missing, check=check)
    return Entry(
        **plugin.named(),
        description=(source and source.summary) or plugin.about,
        status=status,
        problem=problem,
        file=str(source.path) if source else None,
        line=source.line if source else None,
    )


def _status(
    registry: Registry, plugin: Plugin, claimants: list[Plugin], missing: str, *, check: bool
) -> tuple[str, str]:
    """Return status and problem of one of the `claimants` of a name."""
    if not plugin.is_allowed:
        return NOT_ALLOWED, ""
    allowed = [other for other in claimants if other.is_allowed]
    if clash := registry.clash(allowed):
        return CLASH, clash
    if plugin is not allowed[0]:
        return IGNORED, registry.ignored(plugin, allowed[0])
    if missing:
        return BROKEN, missing
    if not check:
        return AVAILABLE, ""
    try:
        with stdout_to_stderr():
            try_plugin(registry, plugin)
    except PluginError as error:
        return BROKEN, str(error)
    return OK, ""
