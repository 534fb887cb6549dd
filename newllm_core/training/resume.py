"""How a run begins, one that was saved too, and what its files must be like."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint import run_state
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.run_state import Identity, state_path
from newllm_core.config import RunConfig
from newllm_core.errors import InputError
from newllm_core.files.atomic import refuse_existing, sweep
from newllm_core.files.lock import exclusive
from newllm_core.parallel import collectives
from newllm_core.runtime.interruption import Interruption
from newllm_core.runtime.progress import Progress
from newllm_core.runtime.runlog import RunLog, metrics_path
from newllm_core.runtime.trackers.base import Tracker
from newllm_core.training.saver import RunSaver


@contextmanager
def begin(
    checkpoint: Path,
    identity: Identity,
    config: RunConfig,
    *,
    resume: bool,
    trackers: Sequence[type[Tracker]],
    progress: Progress,
) -> Iterator[RunSaver]:
    """Open the files of the run that will write `checkpoint`, whose lock the caller holds.

    The state of an unfinished run is read (`resume`) or removed, and so it is once the block was
    left without an error: then the run is finished. One that fails before its first step leaves
    nothing.

    Raises:
        ConfigError: the state is of a run with other settings.
        InputError: it is of a run on other data or cannot be read, or processes see other ones.
    """
    path = state_path(checkpoint)
    first = collectives.rank() == 0
    state = None
    if resume and path.exists():
        state = run_state.load_state(path, identity)
        progress.message(f"resuming from {path}")
    elif resume:
        progress.message(f"nothing to resume (there is no {path}): starting afresh")
    # Files may be replaced between the readings of two processes, or be others on other machines.
    seen = json.dumps([identity, state and state.values])
    if not collectives.alike(seen):  # behind it, everybody has looked at what was there
        raise InputError(
            "the processes of this run do not see the same settings, data or state: give all of "
            "them the same files, and start it again"
        )
    if first and not resume:
        path.unlink(missing_ok=True)
    lines = state.values["lines"] if state is not None else 0
    with (
        RunLog(checkpoint if first else None, trackers=trackers, resume_after=lines) as log,
        Interruption() as interruption,
    ):
        saver = RunSaver(checkpoint, identity, config, log, interruption, progress, state)
        try:
            yield saver
        except BaseException:
            if first and not saver.has_work:
                path.unlink(missing_ok=True)
                log.path.unlink(missing_ok=True)
            raise
        if first:
            path.unlink(missing_ok=True)


@contextmanager
def writing(checkpoint: Path, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """Hold the lock of `checkpoint` in the first process, which is the one that writes.

    What killed runs left is swept, what a new run would destroy refused.

    Raises:
        InputError: somebody else is writing it; it, the state of an unfinished run or the figures
            of a finished one exist; or another file has the name of the state.
    """
    with exclusive(checkpoint) if collectives.rank() == 0 else nullcontext():
        _prepare_place(checkpoint, overwrite=overwrite, resume=resume)
        yield


def _prepare_place(checkpoint: Path, *, overwrite: bool, resume: bool) -> None:
    path, figures = state_path(checkpoint), metrics_path(checkpoint)
    run_state.refuse_foreign(path)
    if collectives.rank() == 0:
        for file in (checkpoint, path):
            sweep(file)
    # The others try below whether they could write: what they make for it is not to be swept.
    collectives.barrier()
    unfinished = path.exists()
    # A run saves its state before its first figure: without one, figures are of a finished run.
    has_figures = figures.exists() and figures.stat().st_size > 0
    if has_figures and not (unfinished or checkpoint.exists() or overwrite):
        raise InputError(
            f"{figures} holds the figures of a run whose checkpoint is gone: choose another --out, "
            "or pass --overwrite to replace them"
        )
    if resume:
        return
    refuse_existing(checkpoint, overwrite=overwrite)
    if unfinished and not overwrite:
        raise InputError(
            f"{path} holds an unfinished run: pass --resume to continue it, or --overwrite to "
            "begin again"
        )


def finished(checkpoint: Path, identity: Identity, progress: Progress) -> Checkpoint | None:
    """Return the checkpoint and say so, if the run that was to write it has done so.

    Raises:
        ConfigError: it was written by a run with other settings.
        InputError: it was written by a run on other data, or cannot be read.
    """
    path = state_path(checkpoint)
    if not checkpoint.exists():
        return None
    if path.exists() and run_state.load_state(path, identity).values["replaces"]:
        return None
    done = checkpoints.load(checkpoint)
    run_state.require_same(checkpoint, done.provenance.get("identity", {}), identity)
    collectives.barrier()
    path.unlink(missing_ok=True)  # its run ended between writing one and removing the other
    progress.message(f"{checkpoint} is finished: there is nothing left to do")
    return done
