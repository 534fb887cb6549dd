"""What the commands that make something share; mistakes are reported before torch is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.config.values import path_of, shown, text_of, unknown
from newllm_core.errors import ConfigError, InputError
from newllm_core.files.escapes import escaped
from newllm_core.runtime.progress import Progress
from newllm_core.settings import Settings

if TYPE_CHECKING:
    from newllm_core.checkpoint.format import Checkpoint
    from newllm_core.config import Config
    from newllm_core.data.dataset_info import DatasetInfo
    from newllm_core.data.prepared import PreparedDataset
    from newllm_core.runtime.trackers.base import Tracker

Place = str | os.PathLike[str]
RUNS = Path("runs")
# Settings that have an effect only where another one is on (True) or off (False).
DETAILS = {
    "model": {"slow_decays": ("slow_dims", True), "delay_tokens": ("delay_dims", True)},
    "phase2": {
        "batch_tokens": ("freeze_context", True),
        "candidates_share": ("candidates", True),
        "bptt": ("freeze_context", False),
        "num_streams": ("freeze_context", False),
        "input_dropout": ("freeze_context", False),
        "train_embeddings": ("freeze_context", False),
    },
}


def prepare(
    given: Settings,
    out: Place | None,
    *,
    document_separator: str | None,
    encoding: str | None,
    overwrite: bool,
    progress: Progress | None,
) -> "tuple[Path, DatasetInfo]":
    """Prepare what was asked for; returns the folder and what is in it."""
    own = {"document_separator": document_separator, "encoding": encoding}
    given.add({"source": {key: value for key, value in own.items() if value is not None}})
    folder = RUNS / "data" if out is None else path_of(out, "out")

    from newllm_core.data.prepare import prepare as prepare_data
    from newllm_core.plugins.registry import DATA_SOURCES

    config = given.resolve()
    DATA_SOURCES.options(config.data.source, config.source, given)
    return folder, prepare_data(config, folder, overwrite=overwrite, progress=progress)


def check_new_model(given: Settings, config: "Config") -> None:
    """Raise `ConfigError` for what no model can be made of, or trained with in Phase 1."""
    from newllm_core.plugins.registry import CELLS, OBJECTIVES, REGULARIZERS

    refuse_idle(given, config, "model")
    model = config.model
    is_counted = model.embeddings == "counts" or model.memory_dims or model.head_bigrams
    if model.counted_tokens is not None and not is_counted:
        raise ConfigError(
            "model.counted_tokens says how much is counted: it needs --embeddings counts, "
            "--slow-dims, --delay-dims or --head-bigrams"
        )
    table = model.embeddings_file
    if table and ".safetensors" not in table and not os.path.exists(table):
        known = ["random", "counts", "FILE.safetensors[:TENSOR]"]
        raise ConfigError(unknown(f"embeddings {table!r}", table, known))
    model.require_dims()
    CELLS.options(model.cell, config.cell, given)
    OBJECTIVES.options(config.phase1.objective, config.objective, given)
    REGULARIZERS.options(config.phase1.reg, config.regularizer, given)


def is_first_process() -> bool:
    """Say whether this process, maybe one of several, is the one that prepares and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def dataset_of(checkpoint: "Checkpoint", data: Place | None) -> "PreparedDataset":
    """Open the dataset given, or the one that `checkpoint` was trained on."""
    from newllm_core.data.prepared import open_dataset

    if data is not None:
        return open_dataset(path_of(data, "data"))
    saved = checkpoint.provenance.get("dataset_path", "")
    if not os.path.isdir(saved):
        raise InputError(f"the checkpoint's dataset {saved} is gone: pass --data DIR")
    dataset = open_dataset(saved)
    if dataset.hash != checkpoint.provenance.get("dataset_hash", dataset.hash):
        raise InputError(
            f"{saved} is not what the checkpoint was trained on, it was prepared again since: pass "
            "--data to use it all the same"
        )
    return dataset


def require_prepared(
    given: Settings, config: "Config", dataset: "PreparedDataset", progress: Progress
) -> None:
    """Refuse a flag that asks for other data than was prepared; of other places, warn."""
    for key, had in dataset.info.data.items():
        asked = escaped(getattr(config.data, key, had))
        if given.sets("data", key) and text_of(asked) != text_of(had):
            said = f"data.{key} is {shown(asked)}, {dataset.path} was prepared with {shown(had)}"
            if key in given.flags.get("data", {}):
                raise ConfigError(f"{said}: prepare another folder, or leave it out")
            progress.warning(f"{said}, which counts")


def refuse_idle(given: Settings, config: "Config", section: str) -> None:
    """Refuse a flag without effect; files and the environment serve more than one command."""
    values = getattr(config, section)
    for key, (switch, wanted) in DETAILS[section].items():
        found = getattr(values, switch)
        if key in given.flags.get(section, {}) and bool(found) != wanted:
            raise ConfigError(
                f"{section}.{key} has no effect: {section}.{switch} is {shown(found)}"
            )


def load_trackers(names: str | Sequence[str]) -> "list[type[Tracker]]":
    """Load trackers, and see that what they need is there."""
    from newllm_core.plugins.registry import TRACKERS

    chosen = [names] if isinstance(names, str) else names
    if not isinstance(chosen, list | tuple) or not all(isinstance(name, str) for name in chosen):
        raise ConfigError(f"track is {shown(names)}: expected a name or a list of names")
    found: list[type[Tracker]] = [TRACKERS.load(name) for name in dict.fromkeys(chosen)]
    for tracker in found:
        tracker.require()
    return found
