"""The commands that make something as Python functions, with the same defaults and errors.

Every setting that is a flag of the command is a keyword here: `phase1(reg="none", cell="gru")`.
All others are given by their sections: `settings={"cell": {"rounds": 2}}`. `preset="tiny"` and
`config="FILE.toml"` are what `--config` is. Precedence is that of the command line: defaults <
preset or file < environment (`NEWLLM_PHASE1_MAX_ITERATIONS=30`) < `settings` and keywords, of which
two values for one key are an error. An unknown keyword or key is a `ConfigError` that names a near
one; all errors are in `newllm_core.errors`.

Everywhere `overwrite` replaces what exists, `resume` continues an unfinished run of these settings,
if there is one, and `track` names trackers that get the figures too, such as "tensorboard". Nothing
is printed: whoever wants to watch passes a `newllm_core.runtime.progress.Progress`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.config.values import path_of, plain, shown
from newllm_core.errors import ConfigError
from newllm_core.files.names import refuse_source, require_checkpoint_place
from newllm_core.pipeline import commands
from newllm_core.pipeline.commands import RUNS, Place
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import Settings

if TYPE_CHECKING:
    from newllm_core.data.prepared import PreparedDataset
    from newllm_core.pipeline.opened import OpenedCheckpoint


def prepare(
    *,
    out: Place | None = None,
    document_separator: str | None = None,
    encoding: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **keywords: Any,  # noqa: ANN401
) -> "PreparedDataset":
    """Turn text into a folder of tokens, as `newllm prepare` does, and open it.

    `out` is a folder, runs/data by default; `document_separator` is where text files are split, and
    `encoding` that of text which is not UTF-8. Keywords are keys of `data` and `run`, such as
    `source`, `input`, `vocab_size`.
    """
    from newllm_core.data.prepared import open_dataset

    folder, _ = commands.prepare(
        Settings.of_keywords(("data", "run"), keywords),
        out,
        document_separator=document_separator,
        encoding=encoding,
        overwrite=overwrite,
        progress=_checked(progress, overwrite=overwrite),
    )
    return open_dataset(folder)


def phase1(
    *,
    data: Place | None = None,
    out: Place | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: str | Sequence[str] = (),
    progress: Progress | None = None,
    **keywords: Any,  # noqa: ANN401
) -> "OpenedCheckpoint":
    """Train the recurrence of a new model, as `newllm phase1` does.

    `data` is a prepared folder, by default runs/data, which is made if it is not there; `out` is
    the checkpoint to write, runs/phase1.safetensors by default. Keywords are keys of `phase1`,
    `model` and `run`.
    """
    given = Settings.of_keywords(("phase1", "model", "run"), keywords)
    progress = _checked(progress, overwrite=overwrite, resume=resume)
    config = given.resolve()
    # Mistakes are reported before data is prepared.
    commands.check_new_model(given, config)
    trackers = commands.load_trackers(track)
    path = _path(out, "out", "phase1.safetensors")
    require_checkpoint_place(path, overwrite=overwrite or resume)
    folder = _path(data, "data", "data")
    # With torchrun the others wait for the first one where processes meet.
    if data is None and not os.path.exists(folder) and commands.is_first_process():
        progress.message(
            f"no prepared data yet: preparing {config.data.source} into {folder} first"
        )
        from newllm_core.data.prepare import prepare as prepare_data

        prepare_data(config, folder, progress=progress)

    from newllm_core.data.prepared import open_dataset
    from newllm_core.parallel.collectives import process_group
    from newllm_core.pipeline.opened import OpenedCheckpoint
    from newllm_core.pipeline.runs import run_phase1
    from newllm_core.runtime.device import prepare_device
    from newllm_core.training.resume import Output

    device = prepare_device(config.run)
    with process_group(device):
        output = Output(path, overwrite, resume, trackers, progress)
        dataset = open_dataset(folder)
        commands.require_prepared(given, config, dataset, progress)
        made = run_phase1(config, dataset, output, device=device)
    return OpenedCheckpoint(made, path)


def phase2(
    checkpoint: Place,
    *,
    data: Place | None = None,
    out: Place | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: str | Sequence[str] = (),
    progress: Progress | None = None,
    **keywords: Any,  # noqa: ANN401
) -> "OpenedCheckpoint":
    """Train token heads, and the blocks unless frozen, as `newllm phase2` does.

    `checkpoint`, to start from, is read again. `data` is a prepared folder, by default the one it
    was trained on; `out` is the checkpoint to write, runs/phase2.safetensors by default. Keywords
    are keys of `phase2`, `gate` and `run`.
    """
    given = Settings.of_keywords(("phase2", "gate", "run"), keywords)
    progress = _checked(progress, overwrite=overwrite, resume=resume)
    source, path = path_of(checkpoint, "checkpoint"), _path(out, "out", "phase2.safetensors")
    commands.refuse_idle(given, given.resolve(), "phase2")
    refuse_source(source, path)
    require_checkpoint_place(path, overwrite=overwrite or resume)
    trackers = commands.load_trackers(track)

    from newllm_core.checkpoint.format import load
    from newllm_core.parallel.collectives import process_group
    from newllm_core.parallel.sharding import is_sharded
    from newllm_core.pipeline.opened import OpenedCheckpoint
    from newllm_core.pipeline.runs import run_phase2
    from newllm_core.pipeline.trained import phase2_config
    from newllm_core.runtime.device import prepare_device
    from newllm_core.training.resume import Output

    run = given.resolve().run
    device = prepare_device(run)
    with process_group(device):
        # A model that is to be divided may be too large for a device.
        loaded = load(source, device=None if is_sharded(run) else device, progress=progress)
        config = phase2_config(given, loaded)
        output = Output(path, overwrite, resume, trackers, progress)
        dataset = commands.dataset_of(loaded, data)
        made = run_phase2(loaded, dataset, config, output, device=device)
    return OpenedCheckpoint(made, path)


def expand(
    checkpoint: Place,
    *,
    data: Place | None = None,
    out: Place | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **keywords: Any,  # noqa: ANN401
) -> "OpenedCheckpoint":
    """Clone the trained head to every block, as `newllm expand` does.

    `checkpoint` and `data` are as for `phase2`; `out` is the checkpoint to write,
    runs/expanded.safetensors by default. Keywords are keys of `run`.
    """
    given = Settings.of_keywords(("run",), keywords)
    progress = _checked(progress, overwrite=overwrite)
    source, path = path_of(checkpoint, "checkpoint"), _path(out, "out", "expanded.safetensors")
    refuse_source(source, path)
    require_checkpoint_place(path, overwrite=overwrite)
    config = given.resolve()

    from newllm_core.checkpoint.format import load
    from newllm_core.pipeline.opened import OpenedCheckpoint
    from newllm_core.pipeline.trained import run_expand
    from newllm_core.training.resume import Output

    loaded = load(source, given=given, progress=progress)
    output = Output(path, overwrite, progress=progress)
    made = run_expand(loaded, commands.dataset_of(loaded, data), config, output)
    return OpenedCheckpoint(made, path)


def _path(given: Place | None, what: str, name: str) -> Path:
    return RUNS / name if given is None else path_of(given, what)


def _checked(progress: Progress | None, **switches: object) -> Progress:
    for name, value in switches.items():
        if not isinstance(plain(value), bool):
            raise ConfigError(f"{name} is {shown(value)}: expected True or False")
    if not isinstance(progress, Progress | None):
        raise ConfigError(
            f"progress is {shown(progress)}: expected a newllm_core.runtime.progress.Progress"
        )
    return progress or Silent()
