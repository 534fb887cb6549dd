"""Where a checkpoint comes from: versions, data, plugins."""

import dataclasses
import platform
from collections.abc import Iterable
from typing import Any

import torch

from newllm_core.data.dataset_info import SourceInfo
from newllm_core.plugins.plugin import Plugin
from newllm_core.plugins.registry import DATA_SOURCES
from newllm_core.runtime.version import newllm_version


def plugin_record(kind: str, plugin: Plugin) -> dict[str, Any]:
    """Return what a checkpoint says about a plugin; its options are in the config."""
    return {
        "kind": kind,
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "target": plugin.target,
    }


def provenance(
    *,
    dataset: str,
    dataset_path: str,
    plugins: list[dict[str, Any]],
    sources: Iterable[SourceInfo] = (),
) -> dict[str, Any]:
    """Return where a checkpoint comes from.

    Args:
        dataset: hash of the prepared data set.
        dataset_path: where that was.
        plugins: records of the plugins that trained it.
        sources: who read the text; their options are not in the config, as `prepare` had them.
    """
    read = [{"kind": DATA_SOURCES.kind, **dataclasses.asdict(source)} for source in sources]
    return {
        "newllm": newllm_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dataset_hash": dataset,
        "dataset_path": dataset_path,
        "plugins": plugins + read,
    }
