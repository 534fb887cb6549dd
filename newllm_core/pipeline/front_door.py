"""The commands that make something as Python functions, with the same defaults and errors.

Every setting that is a flag of the command is a keyword here: `phase1(reg="none", cell="gru")`.
All others are given by their sections: `settings={"cell": {"rounds": 2}}`. `preset="tiny"` and
`config="FILE.toml"` are what `--config` is. Precedence is that of the command line: defaults <
preset or file < environment (`NEWLLM_PHASE1_MAX_ITERATIONS=30`) < `settings` < keywords. An unknown
keyword or key is a `ConfigError` that names a near one; all errors are in `newllm_core.errors`.

Everywhere `overwrite` replaces what exists, `resume` continues an unfinished run of these settings,
if there is one, and `track` names trackers that get the figures too, such as "tensorboard". Nothing
is printed: whoever wants to watch passes a `newllm_core.runtime.progress.Progress`.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.pipeline import commands
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import Settings

if TYPE_CHECKING:
    from newllm_core.data.prepared import PreparedDataset
    from newllm_core.pipeline.opened import OpenedCheckpoint

Place = str | PathLike[str]


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
    folder, _ = commands.prepare(
        Settings.of_keywords(("data", "run"), keywords),
        _path(out),
        document_separator=document_separator,
        encoding=encoding,
        overwrite=overwrite,
        progress=progress or Silent(),
    )
    from newllm_core.data.prepared import open_dataset

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
    made = commands.phase1(
        Settings.of_keywords(("phase1", "model", "run"), keywords),
        _path(data),
        _path(out),
        overwrite=overwrite,
        resume=resume,
        track=[track] if isinstance(track, str) else track,
        progress=progress or Silent(),
    )
    return _opened(*made)


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
    made = commands.phase2(
        Settings.of_keywords(("phase2", "gate", "run"), keywords),
        Path(checkpoint),
        _path(data),
        _path(out),
        overwrite=overwrite,
        resume=resume,
        track=[track] if isinstance(track, str) else track,
        progress=progress or Silent(),
    )
    return _opened(*made)


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
    made = commands.expand(
        Settings.of_keywords(("run",), keywords),
        Path(checkpoint),
        _path(data),
        _path(out),
        overwrite=overwrite,
        progress=progress or Silent(),
    )
    return _opened(*made)


def _path(given: Place | None) -> Path | None:
    return None if given is None else Path(given)


def _opened(path: Path, checkpoint: Any) -> "OpenedCheckpoint":  # noqa: ANN401
    from newllm_core.pipeline.opened import OpenedCheckpoint

    return OpenedCheckpoint(checkpoint, path)
