"""Names to plugins, through Python entry points.

Built-in regularizers and data sources are registered exactly like anyone's (see the entry points
in `pyproject.toml`). Listing imports no plugin; loading imports the one that was asked for. When a
name is claimed more than once, newllm's own wins; two others clash, and asking for that name is an
error that names both.
"""

import difflib
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from newllm_core.errors import ConfigError, PluginError

OWN_DISTRIBUTION = "newllm"


@dataclass(frozen=True)
class Plugin:
    """One registered name, not yet imported. `target` is `module:attribute`."""

    name: str
    target: str
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """Where the plugin comes from, for messages."""
        return f"{self.distribution} {self.version} ({self.target})"


@dataclass(frozen=True)
class Registry:
    """The plugins of one entry-point group. `base` is `module:class` of what they must extend."""

    group: str
    kind: str
    base: str

    def plugins(self) -> dict[str, list[Plugin]]:
        """Every registered name with its claimants, in the order of their names."""
        found: dict[str, set[Plugin]] = {}
        for entry in entry_points(group=self.group):
            found.setdefault(entry.name, set()).add(_describe(entry))
        return {
            name: sorted(found[name], key=lambda p: (p.distribution != OWN_DISTRIBUTION, p.origin))
            for name in sorted(found)
        }

    def find(self, name: str) -> Plugin:
        """The plugin that `name` means.

        Raises:
            ConfigError: nobody registered `name`; the message lists the names and a near one.
            PluginError: two distributions claim `name` and neither is newllm itself.
        """
        plugins = self.plugins()
        if name not in plugins:
            near = difflib.get_close_matches(name, plugins, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(plugins) or "none: is newllm installed (pip install -e .)?"
            raise ConfigError(f"unknown {self.kind} {name!r}{hint} (known: {known})")
        first, *others = plugins[name]
        if others and first.distribution != OWN_DISTRIBUTION:
            claimants = " and ".join(p.origin for p in plugins[name])
            raise PluginError(f"{self.kind} {name!r} is claimed by {claimants}; uninstall one")
        return first

    def load(self, name: str) -> type[Any]:
        """Import the class that `name` means.

        Raises:
            ConfigError: see `find`.
            PluginError: it cannot be imported, or is not a subclass of this registry's base.
        """
        plugin = self.find(name)
        module_name, _, attribute = plugin.target.partition(":")
        try:
            found = getattr(import_module(module_name), attribute)
        except Exception as error:  # a plugin may raise anything at import
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(
                f"{self.kind} {name!r} of {plugin.origin} cannot be imported: {reason}"
            ) from error
        base_module, _, base_name = self.base.partition(":")
        base = getattr(import_module(base_module), base_name)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(
                f"{self.kind} {name!r} of {plugin.origin} is not a subclass of {self.base}"
            )
        return found


def _describe(entry: EntryPoint) -> Plugin:
    distribution = entry.dist
    name = distribution.name if distribution else "unknown"
    version = distribution.version if distribution else "?"
    return Plugin(entry.name, entry.value, name, version)


REGULARIZERS = Registry(
    group="newllm.regularizers",
    kind="regularizer",
    base="newllm_core.regularizers.base:Regularizer",
)
DATA_SOURCES = Registry(
    group="newllm.data_sources",
    kind="data source",
    base="newllm_core.data.sources.base:DataSource",
)
