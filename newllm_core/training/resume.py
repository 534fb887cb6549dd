"""When the state of a run is saved, and how a run that was saved begins again."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint import run_state
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.run_state import Identity, State, state_path
from newllm_core.config import RunConfig
from newllm_core.errors import DivergedError, InputError, Interrupted, PluginError, ProcessLost
from newllm_core.files.atomic import refuse_existing, sweep
from newllm_core.files.lock import exclusive
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import is_sharded
from newllm_core.runtime.interruption import Interruption
from newllm_core.runtime.progress import Progress
from newllm_core.runtime.runlog import RunLog, metrics_path
from newllm_core.runtime.trackers.base import Tracker

# Twenty a second: how often a lock is asked for whose holder was killed a moment ago.
LOCK_LOOKS = 5


@dataclass(eq=False)
class Saver:
    """Writes the state of the run that will write `checkpoint`, for all of its processes."""

    checkpoint: Path
    identity: Identity
    config: RunConfig
    log: RunLog
    interruption: Interruption
    progress: Progress
    resumed: State | None

    def __post_init__(self) -> None:
        self.path = state_path(self.checkpoint)
        self.replaces = self.checkpoint.exists()
        # Then making a state takes all processes.
        self.sharded = is_sharded(self.config)
        # Whether anything was done that could be continued.
        self.has_work = self.resumed is not None
        self._saved_at = time.monotonic()

    def begin(self, trainer: Any) -> None:  # noqa: ANN401
        """Let a trainer take over what is resumed, or save its first state, before any figures."""
        if self.resumed is None:
            self.save(trainer.state())
            self.has_work = False
            return
        with run_state.restoring(self.resumed):
            trainer.load_state(self.resumed)

    def maybe_save(self, state: Callable[[], State]) -> None:
        """Between two steps: save if it is time to, or if somebody asked the run to stop.

        Raises:
            Interrupted: the run was asked to stop.
        """
        # By the clock of the first: all must save at the same step.
        waited = time.monotonic() - self._saved_at
        due = collectives.rank() == 0 and waited >= self.config.save_interval_seconds
        with self.step(state):
            asked, due = collectives.any_process(self.interruption.asked, due)
            if due and not asked:
                self.save(state())
        if asked:
            self._stop(state)

    @contextmanager
    def step(self, state: Callable[[], State]) -> Iterator[None]:
        """Around a step: if it fails, the state from before it is kept."""
        try:
            # PyTorch itself sends messages where the model is sharded.
            with collectives.reaching_others("gloo", "NCCL") if self.sharded else nullcontext():
                yield
            self.has_work = True
        except PluginError as error:
            # Other processes need not have failed: sharded, they would wait for each other.
            if self.has_work and not self.sharded:
                self.save(state())
                raise PluginError(
                    f"{error}; the state before is in {self.path}: mend it and pass --resume"
                ) from error
            raise
        except DivergedError as error:
            self.save(state())
            raise DivergedError(
                f"{error}; the state before is in {self.path} (other settings begin anew, with "
                "--overwrite)"
            ) from error
        except ProcessLost as error:
            raise self._lost(error, state) from error

    def _lost(self, error: ProcessLost, state: Callable[[], State]) -> ProcessLost:
        """Return what one of the processes that are left says, after it has written what it can."""
        self.has_work = True  # others may have done theirs
        kept = f"the state before is in {self.path}"
        with ExitStack() as stack:
            speaks = collectives.rank() == 0 or self._replaces_first(stack)
            if speaks and not self.sharded:
                self._write(state())
        if self.sharded and self.path.exists():
            kept = f"its share of the model is lost, the state saved last is in {self.path}"
        elif self.sharded:
            kept = "its share of the model is lost, and no state was saved so far"
        explained = ProcessLost(f"{error}; {kept}")
        explained.speaks = speaks
        return explained

    @contextmanager
    def interruptible(self, state: Callable[[], State]) -> Iterator[None]:
        """Around long work that changes nothing of the state: a signal ends it at once."""
        # Sharded processes exchange messages here, which none may miss: they stop after it.
        immediately = nullcontext() if self.sharded else self.interruption.interrupt_immediately()
        try:
            with self.step(state), immediately:
                yield
        except KeyboardInterrupt:
            self._stop(state)

    def save(self, state: State) -> None:
        """Write the state and what belongs to it; the first process does it for all."""
        if collectives.rank() == 0:
            self._write(state)
        self._saved_at = time.monotonic()

    def _write(self, state: State) -> None:
        self.has_work = True
        values = {"lines": self.log.flush_to_disk(), "replaces": self.replaces}
        run_state.save_state(State(state.tensors, state.values | values), self.path, self.identity)

    def _replaces_first(self, stack: ExitStack) -> bool:
        """Say whether the second process must write, since nobody holds the lock: now it does.

        A run that is resumed meanwhile may not find that it is written to.
        """
        if collectives.rank() != 1:
            return False
        # The kernel closes the files of a process that was killed one after the other: its
        # connections may be gone before its lock is.
        for _ in range(LOCK_LOOKS):
            with suppress(InputError):
                stack.enter_context(exclusive(self.checkpoint))
                return True
            time.sleep(0.05)
        return False

    def _stop(self, state: Callable[[], State]) -> None:
        self.progress.message(f"asked to stop: saving {self.path}")
        self.save(state())
        raise Interrupted(f"interrupted; the state is in {self.path}")


@contextmanager
def begin(
    checkpoint: Path,
    identity: Identity,
    config: RunConfig,
    *,
    resume: bool,
    trackers: Sequence[type[Tracker]],
    progress: Progress,
) -> Iterator[Saver]:
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
        saver = Saver(checkpoint, identity, config, log, interruption, progress, state)
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
