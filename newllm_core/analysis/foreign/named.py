"""A network whose own code is somebody else's: what it raises names who wrote it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from newllm_core.analysis.foreign.base import Network
from newllm_core.errors import PluginError, UserError
from newllm_core.plugins.plugin import Plugin

FUNCTIONS = ("step", "control", "encode", "text")


def named(network: Network, what: str, plugin: Plugin) -> Network:
    """Return the network with functions that raise one line about `what`, which `plugin` is."""

    def blaming(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:  # noqa: ANN401 - a step, or what reads and shows a text
            try:
                return function(*given)
            except UserError:
                raise
            except (Exception, SystemExit) as error:
                ids = f" for token ids up to {int(given[1].max())}" if len(given) > 1 else ""
                raise PluginError(f"{what}: {name} failed{ids}: {plugin.raised(error)}") from error

        return call

    found = {name: getattr(network, name) for name in FUNCTIONS}
    blamed: dict[str, Any] = {name: blaming(name, f) for name, f in found.items() if f}
    return replace(network, **blamed)
