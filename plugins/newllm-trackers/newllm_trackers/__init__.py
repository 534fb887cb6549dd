"""Figures of newllm runs in other people's trackers."""

from importlib import import_module
from types import ModuleType

from newllm_core.errors import ConfigError
from newllm_core.runtime.trackers.base import Tracker

PROJECT = "newllm"


def library(name: str) -> ModuleType:
    """Import a tracker's library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--track {name} needs {name}: pip install 'newllm-trackers[{name}]' "
            "(the same figures are always in NAME.metrics.jsonl)"
        ) from error


class OfLibrary(Tracker):
    """A tracker whose library has the name of its class, in small letters."""

    @classmethod
    def require(cls) -> None:
        """Raise `ConfigError` if the library is not installed."""
        library(cls.__name__.lower())
