"""Figures of newllm runs in other people's trackers."""

from importlib import import_module
from types import ModuleType

from newllm_core.errors import ConfigError

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
