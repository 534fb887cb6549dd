"""The trials of a sweep in a journal that processes share: each is one process's at a time."""

import itertools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from newllm_core.errors import ConfigError, InputError, reason
from newllm_sweep.locks import JournalLock, locked, try_lock
from newllm_sweep.plan import Plan

JOURNAL = "journal.log"
IDENTITY, FAILURE = "identity", "failure"


class SeededSampler(RandomSampler):
    """Draws each value from (seed, trial, parameter) alone: whoever asks, in whatever order."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed = seed

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401
        """Draw one value."""
        seed = zlib.crc32(f"{self._seed} {trial.number} {param_name}".encode())
        drawn = RandomSampler(seed=seed)
        return drawn.sample_independent(study, trial, param_name, param_distribution)


class GridSampler(RandomSampler):
    """Gives trial n the n-th combination of choices; those of the last parameter change first."""

    def __init__(self, parameters: Mapping[str, Sequence[Any]]) -> None:
        super().__init__()
        combinations = itertools.product(*parameters.values())
        self._chosen = [dict(zip(parameters, chosen, strict=True)) for chosen in combinations]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401
        """Look up one value."""
        return self._chosen[trial.number][param_name]


class Trials:
    """The trials of a plan in a folder.

    Args:
        plan: of the sweep.
        folder: of the journal and of all trials.

    Raises:
        ConfigError: the folder has trials of another plan.
        InputError: it cannot be written, or what is in it cannot be read.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._plan = plan
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = self._open()
        except OSError as error:
            raise InputError(f"cannot write {folder}: {reason(error)}") from error
        except (AssertionError, LookupError, TypeError, ValueError) as error:  # as Optuna has it
            raise InputError(f"{folder / JOURNAL} is damaged: choose another --out") from error
        if known != plan.identity:
            raise ConfigError(
                f"{folder} holds trials of another sweep: choose another --out, or put the file "
                "back (only search.trials may grow)"
            )

    def _open(self) -> Any:  # noqa: ANN401 - what somebody wrote
        """Read the journal, or begin it; returns which sweep it is of."""
        lock = JournalLock(self.folder / "journal.lock")
        backend = JournalFileBackend(str(self.folder / JOURNAL), lock_obj=lock)
        with locked(self.folder / "sweep.lock"):
            self._study = optuna.create_study(
                storage=JournalStorage(backend),
                study_name="sweep",
                load_if_exists=True,
                directions=list(self._plan.objectives.values()),
                sampler=self._sampler(0),
                pruner=self._pruner(),
            )
            known = self._study.user_attrs.setdefault(IDENTITY, self._plan.identity)
            self._study.set_user_attr(IDENTITY, known)
        return known

    def all(self) -> list[FrozenTrial]:
        """Return every trial so far, by number."""
        return self._study.get_trials(deepcopy=False)

    def folder_of(self, trial: Trial | FrozenTrial) -> Path:
        """Return where the files of a trial are."""
        return self.folder / f"{trial.number:04d}"

    @contextmanager
    def take(self) -> Iterator[tuple[Trial, int] | None]:
        """Yield a trial that nobody works on, and the descriptor of its lock; None if none is left.

        One whose process ended without finishing it comes before a new one.
        """
        with locked(self.folder / "sweep.lock"):
            taken = self._take()
        try:
            yield taken
        finally:
            if taken is not None:
                os.close(taken[1])

    def _take(self) -> tuple[Trial, int] | None:
        for found in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            descriptor = self._lock(found)
            if descriptor is None:
                continue
            trial = Trial(self._study, found._trial_id)
            if self.all()[found.number].state == TrialState.RUNNING:  # not finished meanwhile
                return trial, descriptor
            os.close(descriptor)
        if len(self.all()) >= self._plan.search.trials:
            return None
        self._study.sampler = self._sampler(len(self.all()))
        trial = self._study.ask()
        descriptor = self._lock(trial)
        assert descriptor is not None, "a new trial is nobody's"
        return trial, descriptor

    def _lock(self, trial: Trial | FrozenTrial) -> int | None:
        folder = self.folder_of(trial)
        folder.mkdir(exist_ok=True)
        return try_lock(folder / "lock")

    def tell(
        self,
        trial: Trial,
        values: Sequence[float] | None,
        *,
        violations: Sequence[float] = (),
        failure: str = "",
        pruned: bool = False,
    ) -> None:
        """Finish a trial: with figures, pruned, or failed and why."""
        for place, violation in enumerate(violations):
            trial.set_constraint(str(place), violation)
        state = TrialState.PRUNED if pruned else TrialState.FAIL
        if failure:
            trial.set_user_attr(FAILURE, failure)
        self._study.tell(trial, values, TrialState.COMPLETE if values is not None else state)

    def best(self) -> list[FrozenTrial]:
        """Return the trials that none beats in every objective, among those that keep constraints.

        With one objective that is the best one, the first of equals.
        """
        front = self._study.best_trials
        return front[:1] if len(self._plan.objectives) == 1 else front

    def _sampler(self, number: int) -> BaseSampler:
        """Make what chooses the values of trial `number`."""
        seed = self._plan.search.seed
        if self._plan.search.sampler == "random":
            return SeededSampler(seed)
        if self._plan.search.sampler == "grid":
            return GridSampler(self._plan.parameters)
        # The first trials are drawn at random: processes that begin alike would draw the same.
        return TPESampler(seed=zlib.crc32(f"{seed} {number}".encode()), constant_liar=True)

    def _pruner(self) -> optuna.pruners.BasePruner:
        pruning = self._plan.pruning
        if pruning is None:
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(
            n_startup_trials=pruning.after, n_warmup_steps=pruning.after
        )


def is_allowed(trial: FrozenTrial) -> bool:
    """Say whether a trial keeps the constraints."""
    return all(violation <= 0 for violation in trial.constraints.values())
