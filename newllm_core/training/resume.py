"""How a run begins, one that was saved too, and what its files must be like."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint import run_state
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.run_state import Identity, state_path
from newllm_core.config import RunConfig
from newllm_core.errors import InputError
from newllm_core.files.atomic import refuse_existing, remove_leftovers
from newllm_core.files.lock import exclusive
from newllm_core.parallel import collectives
from newllm_core.runtime.interruption import Interruption
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.runtime.runlog import RunLog, metrics_path
from newllm_core.runtime.trackers.base import Tracker
from newllm_core.training.saver import RunSaver


@dataclass(frozen=True)
class Output:
    """Where a run writes, and who is told of it.

    Attributes:
        checkpoint: the file that it makes.
        overwrite: replaces what is there.
        resume: an unfinished run goes on from its state, and a finished one stays as it is.
        trackers: get the run's figures too.
    """

    checkpoint: Path
    overwrite: bool = False
    resume: bool = False
    trackers: Sequence[type[Tracker]] = ()
    progress: Progress = field(default_factory=Silent)


@contextmanager
def begin(output: Output, identity: Identity, config: RunConfig) -> Iterator[RunSaver]:
    """Open the files of the run that will write `output`, whose lock the caller holds.

    The state of an unfinished run is read (`resume`), or replaced by the first of this one. It is
    removed once the block was left without an error: then the run is finished. One that fails
    before its first step leaves nothing but the checkpoint of a run before, with its figures.

    Raises:
        ConfigError: the state is of a run with other settings.
        InputError: it is of a run on other data or cannot be read, or processes see other ones.
    """
    path, progress = state_path(output.checkpoint), output.progress
    first = collectives.rank() == 0
    state = None
    if output.resume and path.exists():
        state = run_state.load_state(path, identity)
        progress.message(f"resuming from {path}")
        for line in run_state.changed_plugins(state, identity):
            progress.warning(line)
    elif output.resume:
        progress.message(f"nothing to resume (there is no {path}): starting afresh")
    # Files may be replaced between the readings of two processes, or be others on other machines.
    seen = json.dumps([identity, state and state.values])
    if not collectives.alike(seen):  # behind it, everybody has looked at what was there
        raise InputError(
            "the processes of this run do not see the same settings, data or state: give all of "
            "them the same files, and start it again"
        )
    lines = state.values["lines"] if state is not None else 0
    written = output.checkpoint if first else None
    with (
        RunLog(written, trackers=output.trackers, resume_after=lines) as log,
        Interruption() as interruption,
    ):
        saver = RunSaver(output.checkpoint, identity, config, log, interruption, progress, state)
        try:
            yield saver
        except BaseException:
            if first and saver.only_begun:
                path.unlink(missing_ok=True)
            figures = output.checkpoint.exists() and log.path.exists() and log.path.stat().st_size
            if first and not path.exists() and not figures:
                log.path.unlink(missing_ok=True)
            raise
        if first:
            path.unlink(missing_ok=True)


@contextmanager
def writing(output: Output) -> Iterator[None]:
    """Hold the lock of the checkpoint in the first process, which is the one that writes.

    What killed runs left is swept, what a new run would destroy refused.

    Raises:
        InputError: somebody else is writing it; it, the state of an unfinished run or the figures
            of a finished one exist; or another file has the name of the state.
    """
    with exclusive(output.checkpoint) if collectives.rank() == 0 else nullcontext():
        _prepare_place(output)
        yield


def _prepare_place(output: Output) -> None:
    checkpoint, overwrite = output.checkpoint, output.overwrite
    path, figures = state_path(checkpoint), metrics_path(checkpoint)
    run_state.refuse_foreign(path)
    if collectives.rank() == 0:
        for file in (checkpoint, path):
            remove_leftovers(file)
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
    if output.resume:
        return
    refuse_existing(checkpoint, overwrite=overwrite)
    if unfinished and not overwrite:
        raise InputError(
            f"{path} holds an unfinished run: pass --resume to continue it, or --overwrite to "
            "begin again"
        )


def finished(output: Output, identity: Identity) -> Checkpoint | None:
    """Return the checkpoint and say so, if there is nothing to resume because the run has made it.

    Raises:
        ConfigError: it was written by a run with other settings.
        InputError: it was written by a run on other data, was altered since, or cannot be read.
    """
    checkpoint, path = output.checkpoint, state_path(output.checkpoint)
    if not (output.resume and checkpoint.exists()):
        return None
    if path.exists() and run_state.load_state(path, identity).values["replaces"]:
        return None
    done = checkpoints.load(checkpoint)
    if done.altered:
        raise InputError(
            f"{checkpoint} is not as newllm wrote it, so that its run may be another: pass "
            "--overwrite without --resume to begin again, or choose another --out"
        )
    run_state.require_same(checkpoint, done.provenance.get("identity", {}), identity)
    collectives.barrier()
    path.unlink(missing_ok=True)  # its run ended between writing one and removing the other
    output.progress.message(f"{checkpoint} is finished: there is nothing left to do")
    return done
