"""Names to plugins of one kind, through Python entry points.

Listing imports no plugin; loading imports the one that was asked for.

When a name is claimed more than once: newllm's own wins, then a `--plugin` file, and two installed
distributions clash: asking for that name is an error that names both. A file may not take a name
of newllm's own. `NEWLLM_PLUGINS` lists the plugins or distributions that may be used besides
newllm's own; unset, all may, and empty, none.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from inspect import isfunction
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from newllm_core.config.values import unknown
from newllm_core.errors import ConfigError, PluginError, UserError
from newllm_core.plugins.guard import log
from newllm_core.plugins.installed import installed
from newllm_core.plugins.options import options_problem, saving_problem
from newllm_core.plugins.plugin import ALLOW_LIST, FROM_FILES, Plugin, kebab_case, normal
from newllm_core.settings import Settings, make_section

TO_FIND_IT = "give --plugin FILE.py or install the package that has it"


@dataclass(frozen=True)
class Registry:
    """The plugins of one kind. A kind of functions has none of what is "" here.

    Attributes:
        kind: its name in messages.
        command: how one is used.
        base: `module:class` of what a plugin extends.
        section: of the configuration, which holds the options.
        check: `module:function` that holds a class to its contract, as far as that needs no input,
            or raises `ConformanceError`.
        needed_for: what cannot be done without one that made a checkpoint.
        summary: what the class that `newllm plugins new` writes does.
        published: names of newllm's own distributions beside this one, and which has each.
    """

    kind: str
    command: str
    base: str = ""
    section: str = ""
    check: str = ""
    needed_for: str = ""
    summary: str = ""
    published: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def group(self) -> str:
        """Return the group of entry points."""
        return f"newllm.{self.kind.replace(' ', '_')}s"

    def plugins(self) -> dict[str, list[Plugin]]:
        """Return every registered name with its claimants, the one that wins first."""
        found: dict[str, set[Plugin]] = {}
        given = [plugin for of_file in FROM_FILES.values() for plugin in of_file]
        for plugin in [*installed(self.kind, self.group), *given]:
            if plugin.kind == self.kind:
                found.setdefault(plugin.name, set()).add(plugin)
        return {
            name: sorted(found[name], key=lambda p: (not p.is_own, p.file is None, p.origin))
            for name in sorted(found)
        }

    def find(self, name: str) -> Plugin:
        """Return the plugin that `name` means.

        Raises:
            ConfigError: nobody registered `name` (the message lists the names and a near one), or
                the allow-list keeps it out.
            PluginError: two claim `name` and the rule does not say who wins.
        """
        plugins = self.plugins()
        if name not in plugins and name in self.published:
            package = self.published[name]
            raise ConfigError(
                f"{self.kind} {name!r} is of {package}: in newllm's repository, "
                f"pip install ./plugins/{package}"
            )
        if name not in plugins:
            known = list(plugins) or ["none: is newllm installed (pip install -e .)?"]
            as_named = kebab_case(name)  # somebody may give the name of the class
            others = [f"{r.kind} ({r.usage(as_named)})" for r in ALL if as_named in r.plugins()]
            advice = TO_FIND_IT
            if others and as_named not in plugins:
                advice = f"{as_named!r} is the name of another kind: {', '.join(others)}"
            raise ConfigError(f"{unknown(f'{self.kind} {name!r}', as_named, known)}; {advice}")
        claimants = [plugin for plugin in plugins[name] if plugin.is_allowed]
        if not claimants:
            raise ConfigError(
                f"{self.kind} {name!r} of {plugins[name][0].origin} is not allowed: "
                f"{ALLOW_LIST} is {os.environ[ALLOW_LIST]!r}"
            )
        if clash := self.clash(claimants):
            raise PluginError(clash)
        return claimants[0]

    def clash(self, claimants: list[Plugin]) -> str | None:
        """Return why none of the allowed `claimants` of one name can be used, or None."""
        what = f"{self.kind} {claimants[0].name!r}"
        files = [plugin for plugin in claimants if plugin.file]
        if claimants[0].is_own:
            return (
                f"{what} is newllm's own: rename the class of {files[0].origin}" if files else None
            )
        if len(files or claimants) == 1:
            return None
        origins = " and ".join(plugin.origin for plugin in claimants)
        advice = "rename one" if files else f"uninstall one, or allow one in {ALLOW_LIST}"
        return f"{what} is claimed by {origins}; {advice}"

    def ignored(self, plugin: Plugin, winner: Plugin) -> str:
        """Return that an allowed `plugin` lost its name to `winner`."""
        return f"{self.describe(plugin)} is ignored: {winner.distribution} has that name"

    def load(self, name: str) -> Any:  # noqa: ANN401 - a class, of commands a function
        """Import what `name` means, and see that it is what it says.

        Raises:
            ConfigError: see `find`.
            PluginError: it cannot be imported, or is no usable subclass of this registry's base.
        """
        plugin = self.find(name)
        _warn_of_allow_list(os.environ.get(ALLOW_LIST))
        for other in self.plugins()[name]:
            if other.is_allowed and other != plugin:
                log.warning("warning: %s", self.ignored(other, plugin))
        return self.import_plugin(plugin)

    def import_plugin(self, plugin: Plugin) -> Any:  # noqa: ANN401 - as `load`
        """Import and check what one claimant registered.

        Raises:
            PluginError: see `load`.
        """
        what = self.describe(plugin)
        # First, so that torch is not taken for a part of the plugin.
        base = resolve_name(self.base) if self.base else None
        with plugin.importing(what):
            found = plugin.imported()
        if problem := self._problem(found, base):
            raise PluginError(f"{what} {problem}")
        return found

    def options(self, name: str, given: Mapping[str, Any], settings: Settings | None = None) -> Any:  # noqa: ANN401 - its own class
        """Make the options of the plugin `name`; `ConfigError` and `PluginError` as `make`.

        An error about one that the `settings` have from elsewhere than a flag begins with where.
        """
        options_type = self.import_plugin(self.find(name)).Options
        make = partial(make_section, options_type, self.section, plugin=name)
        try:
            made = make(given)
        except ConfigError as whole:
            for key, value in given.items() if settings is not None else ():
                try:
                    make({key: value})
                except ConfigError as error:
                    if str(error) == str(whole):  # this one alone is wrong
                        place = settings.place_of(self.section, key) if settings else ""
                        raise ConfigError(f"{place}{error}") from error
            raise
        if problem := saving_problem(made):
            raise PluginError(f"{self.describe(self.find(name))} {problem}")
        return made

    def make(
        self, name: str, given: Mapping[str, Any], *arguments: object, count: int = 1
    ) -> tuple[list[Any], dict[str, Any]]:
        """Make `count` plugins with `arguments` and `given` options; return them and all options.

        Raises:
            ConfigError: an unknown name or option.
            PluginError: the plugin cannot be made.
        """
        plugin_type, options = self.load(name), self.options(name, given)
        with self.blame(name, "cannot be made"):
            return [plugin_type(*arguments, options) for _ in range(count)], asdict(options)

    def usage(self, name: str) -> str:
        """Return how the plugin `name` is used."""
        return f"newllm {self.command.format(name=name)}"

    def describe(self, plugin: Plugin) -> str:
        """Return kind, name and origin, as every message about a plugin begins."""
        return f"{self.kind} {plugin.name!r} of {plugin.origin}"

    @contextmanager
    def blame(self, name: str, did: str = "failed") -> Iterator[None]:
        """Turn what a plugin's own code raises in the body into one line: which plugin `did` what.

        Errors of newllm's own plugins are bugs and stay as they are, and so do those that are
        worded for users.
        """
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            plugin = self.find(name)
            if plugin.is_own:
                raise
            raise PluginError(f"{self.describe(plugin)} {did}: {plugin.raised(error)}") from error

    def _problem(self, found: Any, base: type[Any] | None) -> str | None:  # noqa: ANN401
        if base is None:
            return None if isfunction(found) else "is not a function"
        if isinstance(found, ModuleType):
            return f"is not a subclass of {self.base}; it is a module: write module:Class"
        if not (isinstance(found, type) and issubclass(found, base)):
            return f"is not a subclass of {self.base}"
        missing = [name for name in dir(found) if _is_abstract(getattr(found, name, None))]
        if missing:
            return f"does not define {', '.join(missing)}"
        weight = getattr(found, "default_weight", 0.0)
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and 0 <= weight <= 1):
            return f"default_weight is {weight!r:.80}: must be a number from 0 to 1"
        return options_problem(getattr(found, "Options", None)) if self.section else None


def _is_abstract(member: object) -> bool:
    return getattr(member, "__isabstractmethod__", False) is True


NONE = "none besides newllm's own"
# Of every kind, in the order of `registry`, which fills it.
ALL: list[Registry] = []


def unknown_allowed(listed: str | None) -> list[str]:
    """Return one line for each part of an allow-list that names nothing here."""
    if not listed:  # every kind of plugin would be looked for
        return []
    found = [plugin for registry in ALL for of in registry.plugins().values() for plugin in of]
    known = {normal(name) for plugin in found for name in (plugin.name, plugin.distribution)}
    others = sorted({name for p in found if not p.is_own for name in (p.name, p.distribution)})
    return [
        f"{ALLOW_LIST}: {unknown(f'plugin or distribution {part!r}', part, others or [NONE])}"
        for part in map(str.strip, listed.split(","))
        if part and normal(part) not in known
    ]


@lru_cache(maxsize=1)  # once is enough
def _warn_of_allow_list(listed: str | None) -> None:
    for line in unknown_allowed(listed):
        log.warning("warning: %s", line)
