"""Commands that make something, from what somebody gave: behind the command line and Python alike.

Mistakes are reported before torch is loaded.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.config.values import shown
from newllm_core.errors import ConfigError, InputError
from newllm_core.files.names import refuse_source, require_checkpoint_place
from newllm_core.runtime.progress import Progress
from newllm_core.settings import Settings, unknown

if TYPE_CHECKING:
    from newllm_core.checkpoint.format import Checkpoint
    from newllm_core.config import Config
    from newllm_core.data.prepared import DatasetInfo, PreparedDataset
    from newllm_core.runtime.trackers.base import Tracker

RUNS = Path("runs")
# A checkpoint holds its probes: these settings count when Phase 1 chooses them.
OF_PROBES = ("probe_tokens", "probe_passages", "warmup_tokens")
# Settings that say how something is done, and the setting that says whether it is, or ("not …") is
# done otherwise.
DETAILS = {
    "model": {"slow_decays": "slow_dims", "delay_tokens": "delay_dims"},
    "phase2": {
        "batch_tokens": "freeze_context",
        "candidates_share": "candidates",
        "bptt": "not freeze_context",
        "num_streams": "not freeze_context",
        "input_dropout": "not freeze_context",
        "train_embeddings": "not freeze_context",
    },
}


def prepare(
    given: Settings,
    out: Path | None,
    *,
    document_separator: str | None,
    encoding: str | None,
    overwrite: bool,
    progress: Progress,
) -> "tuple[Path, DatasetInfo]":
    """Prepare what was asked for; returns the folder and what is in it."""
    own = {"document_separator": document_separator, "encoding": encoding}
    given.add({"source": {key: value for key, value in own.items() if value is not None}})
    folder = out or RUNS / "data"
    info = prepare_dataset(given.resolve(), folder, overwrite=overwrite, progress=progress)
    return folder, info


def prepare_dataset(
    config: "Config", out: Path, *, overwrite: bool, progress: Progress
) -> "DatasetInfo":
    """Prepare what `config` says into `out`."""
    from newllm_core.data.prepare import prepare as prepare_data

    return prepare_data(
        config.data,
        config.source,
        out,
        seed=config.run.seed,
        overwrite=overwrite,
        progress=progress,
    )


def phase1(
    given: Settings,
    data: Path | None,
    out: Path | None,
    *,
    overwrite: bool,
    resume: bool,
    track: Sequence[str],
    progress: Progress,
) -> "tuple[Path, Checkpoint]":
    """Train the recurrence of a new model; without `data` the default is prepared if need be.

    Returns the path of the checkpoint, and the checkpoint. Raises as `runs.run_phase1` does.
    """
    from newllm_core.plugins.registry import CELLS, OBJECTIVES, REGULARIZERS

    config = given.resolve()
    _refuse_idle(given, config, "model")
    model = config.model
    counts_dims = model.slow_dims or model.delay_dims
    is_counted = model.embeddings == "counts" or counts_dims or model.head_bigrams
    if model.counted_tokens is not None and not is_counted:
        raise ConfigError(
            "model.counted_tokens says how much is counted: it needs --embeddings counts, "
            "--slow-dims, --delay-dims or --head-bigrams"
        )
    # Mistakes are reported before data is prepared.
    table = model.embeddings_file
    if table and ".safetensors" not in table and not os.path.exists(table):
        known = ["random", "counts", "FILE.safetensors[:TENSOR]"]
        raise ConfigError(unknown(f"embeddings {table!r}", table, known))
    model.require_dims()
    CELLS.options(model.cell, config.cell)
    OBJECTIVES.options(config.phase1.objective, config.objective)
    REGULARIZERS.options(config.phase1.reg, config.regularizer)
    trackers = _trackers(track)
    path = out or RUNS / "phase1.safetensors"
    require_checkpoint_place(path, overwrite=overwrite or resume)
    folder = data or RUNS / "data"
    # With torchrun the others wait for the first one where processes meet.
    if data is None and not folder.exists() and int(os.environ.get("RANK", "0")) == 0:
        progress.message(
            f"no prepared data yet: preparing {config.data.source} into {folder} first"
        )
        prepare_dataset(config, folder, overwrite=False, progress=progress)

    from newllm_core.data.prepared import open_dataset
    from newllm_core.parallel.collectives import process_group
    from newllm_core.pipeline.runs import run_phase1
    from newllm_core.runtime.device import prepare_device

    device = prepare_device(config.run)
    with process_group(device):
        checkpoint = run_phase1(
            config,
            open_dataset(folder),
            path,
            overwrite=overwrite,
            device=device,
            progress=progress,
            trackers=trackers,
            resume=resume,
        )
    return path, checkpoint


def phase2(
    given: Settings,
    checkpoint: Path,
    data: Path | None,
    out: Path | None,
    *,
    overwrite: bool,
    resume: bool,
    track: Sequence[str],
    progress: Progress,
) -> "tuple[Path, Checkpoint]":
    """Train heads on a checkpoint, with the data it was trained on unless `data` is given.

    Returns the path of the new checkpoint, and that. Raises as `runs.run_phase2` does.
    """
    _refuse_idle(given, given.resolve(), "phase2")
    path = out or RUNS / "phase2.safetensors"
    refuse_source(checkpoint, path)
    require_checkpoint_place(path, overwrite=overwrite or resume)
    trackers = _trackers(track)

    from newllm_core.checkpoint.format import load
    from newllm_core.parallel.collectives import process_group
    from newllm_core.pipeline.runs import run_phase2
    from newllm_core.pipeline.trained import phase2_config
    from newllm_core.runtime.device import prepare_device

    loaded = load(checkpoint, progress=progress)
    config = phase2_config(given, loaded)
    device = prepare_device(config.run)
    loaded.model.to(device)
    with process_group(device):
        trained = run_phase2(
            loaded,
            dataset_of(loaded, data),
            config,
            path,
            overwrite=overwrite,
            device=device,
            progress=progress,
            trackers=trackers,
            resume=resume,
        )
    return path, trained


def expand(
    given: Settings,
    checkpoint: Path,
    data: Path | None,
    out: Path | None,
    *,
    overwrite: bool,
    progress: Progress,
) -> "tuple[Path, Checkpoint]":
    """Give every block a head; returns the path of the new checkpoint, and that."""
    path = out or RUNS / "expanded.safetensors"
    refuse_source(checkpoint, path)
    require_checkpoint_place(path, overwrite=overwrite)
    config = given.resolve()

    from newllm_core.checkpoint.format import load
    from newllm_core.pipeline.trained import run_expand
    from newllm_core.runtime.device import prepare_device

    device = prepare_device(config.run)
    loaded = load(checkpoint, given=given, device=device, progress=progress)
    expanded = run_expand(
        loaded,
        dataset_of(loaded, data),
        config,
        path,
        overwrite=overwrite,
        device=device,
        progress=progress,
    )
    return path, expanded


def dataset_of(checkpoint: "Checkpoint", data: Path | None) -> "PreparedDataset":
    """Open the dataset given, or the one that `checkpoint` was trained on."""
    from newllm_core.data.prepared import open_dataset

    saved = checkpoint.provenance.get("dataset_path", "")
    if data is None and not os.path.isdir(saved):
        raise InputError(f"the checkpoint's dataset {saved} is gone: pass --data DIR")
    return open_dataset(data or saved)


def _refuse_idle(given: Settings, config: "Config", section: str) -> None:
    """Refuse a flag without effect; files and the environment serve more than one command."""
    values = getattr(config, section)
    for key, wanted in DETAILS[section].items():
        switch = wanted.removeprefix("not ")
        found = getattr(values, switch)
        if key in given.flags.get(section, {}) and bool(found) == wanted.startswith("not "):
            raise ConfigError(
                f"{section}.{key} has no effect: {section}.{switch} is {shown(found)}"
            )


def _trackers(names: Sequence[str]) -> "list[type[Tracker]]":
    """Load trackers, and see that what they need is there."""
    from newllm_core.plugins.registry import TRACKERS

    found: list[type[Tracker]] = [TRACKERS.load(name) for name in dict.fromkeys(names)]
    for tracker in found:
        tracker.require()
    return found
