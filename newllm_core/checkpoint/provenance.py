"""Where a checkpoint comes from: versions, data, plugins."""

import dataclasses
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from newllm_core.checkpoint.metadata import known_provenance
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.errors import ConfigError, InputError, PluginError
from newllm_core.files.strict_json import parse_json
from newllm_core.plugins.plugin import Plugin
from newllm_core.plugins.registry import CELLS, DATA_SOURCES, OBJECTIVES, REGULARIZERS
from newllm_core.runtime.version import newllm_version


def provenance(config: Config, dataset: PreparedDataset) -> dict[str, Any]:
    """Return versions, the data set, the plugins that trained on it and those that read its text.

    Only of the latter options are told: `prepare` had them, and the config has all others.
    """
    known = {
        "newllm": newllm_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "plugins": [plugin.named() for plugin in plugins_of_phase1(config)],
    }
    return with_dataset(known, dataset)


def plugins_of_phase1(config: Config) -> list[Plugin]:
    """Return the cell, the objective and the regularizer."""
    return [
        CELLS.find(config.model.cell),
        OBJECTIVES.find(config.phase1.objective),
        REGULARIZERS.find(config.phase1.reg),
    ]


def with_phase2(
    known: Mapping[str, Any],
    dataset: PreparedDataset,
    *,
    cell: Plugin | None,
    terms: Iterable[tuple[Plugin, Mapping[str, Any]]],
) -> dict[str, Any]:
    """Return a provenance with what Phase 2 trains: a cell, and `terms` with their options.

    The cell takes the place of the one that stood there; what an earlier Phase 2 had stays.
    """
    told = [{**plugin.named(), "phase": "phase2", "options": given} for plugin, given in terms]
    added = json.loads(json.dumps(told))  # as those of before were read: tuples are lists
    plugins = [record for record in known.get("plugins", []) if record not in added] + added
    if cell is not None:
        others = [record for record in plugins if record["kind"] != CELLS.kind]
        plugins = [cell.named(), *others]
    return with_dataset({**known, "plugins": plugins}, dataset)


def with_dataset(known: Mapping[str, Any], dataset: PreparedDataset) -> dict[str, Any]:
    """Return a provenance with this data set in the place of any other."""
    sources = [
        {"kind": DATA_SOURCES.kind, **dataclasses.asdict(source)} for source in dataset.info.sources
    ]
    others = [plugin for plugin in known.get("plugins", []) if plugin["kind"] != DATA_SOURCES.kind]
    return {
        **known,
        "dataset_hash": dataset.hash,
        "dataset_path": str(Path(dataset.path).resolve()),
        "plugins": others + sources,
    }


def another_cell(metadata: Mapping[str, str]) -> str | None:
    """Return how the cell of that name is not the one of a checkpoint, if so.

    The checkpoint's `metadata` are as they are in its file, which may be damaged.
    """
    try:
        saved = known_provenance(parse_json(metadata["provenance"]))
        (cell,) = (of for of in saved["plugins"] if of["kind"] == CELLS.kind)
        plugin = CELLS.find(cell["name"])
    except (ValueError, LookupError, ConfigError, InputError, PluginError):
        return None
    if plugin.is_own or cell["version"] == plugin.version:
        return None
    return f"{CELLS.describe(plugin)} is not the one it was trained with, {cell['version']}"
