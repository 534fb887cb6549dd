"""When the state of a run is saved."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from newllm_core.checkpoint import run_state
from newllm_core.checkpoint.run_state import Identity, State, state_path
from newllm_core.config import RunConfig
from newllm_core.errors import DivergedError, Interrupted, PluginError, ProcessLost
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import is_sharded
from newllm_core.runtime.interruption import Interruption
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.runtime.runlog import RunLog


class Saver:
    """Goes along with a run and saves its state. This one saves nothing: nobody will go on.

    Attributes:
        progress, log: what the trainer has to say, to people and in figures.
        interruption: whether somebody asked the run to stop.
    """

    def __init__(self) -> None:
        self.progress: Progress = Silent()
        self.log = RunLog(None)
        self.interruption = Interruption()

    @property
    def scratch(self) -> Path:
        """Return the folder of files that nobody needs after the run."""
        return Path(tempfile.gettempdir())  # which there need not be

    def begin(self, trainer: Any) -> None:  # noqa: ANN401
        """Let a trainer take over what is resumed, or save its first state, before any figures."""

    def maybe_save(self, state: Callable[[], State]) -> None:
        """Save, between two steps, if it is time to or somebody asked the run to stop.

        Raises:
            Interrupted: the run was asked to stop.
        """

    @contextmanager
    def step(self, state: Callable[[], State]) -> Iterator[None]:
        """Keep, where the step that is made inside fails, the state from before it."""
        yield

    @contextmanager
    def interruptible(self, state: Callable[[], State]) -> Iterator[None]:
        """Let a signal end at once the long work inside, which changes nothing of the state."""
        yield

    @contextmanager
    def immediately(self) -> Iterator[None]:
        """Let a signal end at once what is inside, and lose it."""
        yield


@dataclass(eq=False)
class RunSaver(Saver):
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
        # Whether the state that is saved is the one before the first step: nothing to continue.
        self.only_begun = False
        self._saved_at = time.monotonic()

    @property
    def scratch(self) -> Path:
        """Return the folder of files that nobody needs after the run."""
        return self.checkpoint.parent

    def begin(self, trainer: Any) -> None:  # noqa: ANN401
        """Let a trainer take over what is resumed, or save its first state, before any figures."""
        if self.resumed is None:
            self.save(trainer.state())
            self.only_begun = True
            return
        with run_state.restoring(self.resumed):
            trainer.load_state(self.resumed)

    def maybe_save(self, state: Callable[[], State]) -> None:
        """Save, between two steps, if it is time to or somebody asked the run to stop.

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
            self.stop(state)

    @contextmanager
    def step(self, state: Callable[[], State]) -> Iterator[None]:
        """Keep, where the step that is made inside fails, the state from before it."""
        try:
            # PyTorch itself sends messages where the model is sharded.
            with self._reaching_others():
                yield
            self.only_begun = False
        except PluginError as error:
            # Other processes need not have failed: sharded, they would wait for each other.
            if not (self.only_begun or self.sharded):
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

    def _lost(self, error: ProcessLost, state: Callable[[], State] | None = None) -> ProcessLost:
        """Return what one of the processes that are left says; the first writes what it can."""
        self.only_begun = False  # others may have done their first step
        kept = f"the state saved last, if one was, is in {self.path}"
        if collectives.rank() == 0 and state is not None and not self.sharded:
            self._write(state())
            kept = f"the state before is in {self.path}"
        share = "its share of the model is lost, " if self.sharded else ""
        return ProcessLost(f"{error}; {share}{kept}")

    @contextmanager
    def interruptible(self, state: Callable[[], State]) -> Iterator[None]:
        """Let a signal end at once the long work inside, which changes nothing of the state."""
        try:
            with self.step(state), self._at_once():
                yield
        except KeyboardInterrupt:
            self.stop(state)

    @contextmanager
    def immediately(self) -> Iterator[None]:
        """Let a signal end at once what is inside, and lose it."""
        try:
            with self._reaching_others(), self._at_once():
                yield
        except ProcessLost as error:
            raise self._lost(error) from error

    def _reaching_others(self) -> AbstractContextManager[None]:
        return collectives.reaching_others("gloo", "NCCL") if self.sharded else nullcontext()

    def _at_once(self) -> AbstractContextManager[None]:
        # Sharded processes exchange messages, which none may miss: they stop after it.
        return nullcontext() if self.sharded else self.interruption.interrupt_immediately()

    def save(self, state: State) -> None:
        """Write the state and what belongs to it; the first process does it for all."""
        if collectives.rank() == 0:
            self._write(state)
        self._saved_at = time.monotonic()

    def _write(self, state: State) -> None:
        values = {"lines": self.log.flush_to_disk(), "replaces": self.replaces}
        run_state.save_state(State(state.tensors, state.values | values), self.path, self.identity)
        self.only_begun = False

    def stop(self, state: Callable[[], State]) -> NoReturn:
        """Save, and raise `Interrupted`."""
        self.progress.message(f"asked to stop: saving {self.path}")
        self.save(state())
        raise Interrupted(f"interrupted; the state is in {self.path}")
