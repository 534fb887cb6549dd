"""Phase 1: train the update so that contexts settle and stay diverse.

Iteration 1 of a window only reads. Every later one makes a step per batch (see `engines`, `loss`)
and ends with measurements at fixed weights (see `measure`). Heads are not trained.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newllm_core.checkpoint import run_state
from newllm_core.checkpoint.run_state import State
from newllm_core.config import Config
from newllm_core.errors import DivergedError
from newllm_core.files.npy_files import release_pages
from newllm_core.parallel import collectives
from newllm_core.parallel.collectives import by_sharding
from newllm_core.runtime.device import steps_between_checks
from newllm_core.runtime.progress import Task
from newllm_core.training.pass_meter import NORM, PassMeter
from newllm_core.training.phase1.engines import Batch, batches
from newllm_core.training.phase1.loss import Phase1Loss, plugin_at_fault
from newllm_core.training.phase1.measure import figures_of_splits
from newllm_core.training.phase1.stages import early_stop, learning_rate, stops, thinned, told
from newllm_core.training.phase1.vacuity import VacuityGuard
from newllm_core.training.phase1.windows import Window, Windows
from newllm_core.training.saver import Saver
from newllm_core.training.step import OptimizerStep


class Phase1Trainer:
    """The loop: windows, iterations, batches. Trains blocks and objective of `loss` in place.

    `tokens` [T] are of "train" and "validation", `end_id` closes their documents, if any does. The
    run goes on from what `saver` resumes, if anything. `history` is of the checkpoint, and `guard`
    knows the terms that never had a gradient.
    """

    def __init__(
        self,
        loss: Phase1Loss,
        tokens: Mapping[str, np.ndarray],
        config: Config,
        *,
        end_id: int = -1,
        saver: Saver | None = None,
    ) -> None:
        self.config, self.whole_config = config.phase1, config
        self.seed = config.run.seed
        self.saver = saver or Saver()
        self.progress, self.log = self.saver.progress, self.saver.log
        self.loss = loss
        self.model = loss.model
        self.parameters = [*self.model.blocks.parameters(), *loss.objective.parameters()]
        self.guard = VacuityGuard(self.parameters)
        groups = [{"params": alike} for alike in by_sharding(self.parameters)]
        self.step = OptimizerStep(torch.optim.Adam(groups, fused=True), self.config.gradient_clip)
        self.history: list[dict[str, Any]] = []
        start_C = self.model.start(1)[0]
        self.check_every = steps_between_checks(config.run, start_C.device)
        self.iteration = 1
        self.meter = PassMeter()
        self.windows = Windows(
            tokens, self.config, start_C=start_C, end_id=end_id, reads=loss.reads, seed=self.seed
        )
        self.statistics: dict[str, Tensor] = {}
        self.statistics = self._statistics()

    def run(self) -> None:
        """Train on every window in turn.

        Raises:
            DivergedError: a loss or gradient is not finite.
            Interrupted: the run was asked to stop; its state is saved.
        """
        self.saver.begin(self)
        config, windows = self.config, self.windows
        work = windows.work(windows.num_tokens)
        if work == 0:
            return
        self.progress.message(
            f"phase 1: {windows.num_tokens:,} tokens in {windows.count} window(s), up to "
            f"{config.max_iterations} iterations of the first; {early_stop(config)}"
        )
        read = windows.work(windows.tokens_before(windows.number)) + self.meter.tokens
        read += (self.iteration - 1) * len(windows.train)
        with self.progress.task("phase 1", work - read, "tokens") as task:
            while windows.number < windows.count:
                for entry in self._train_window(task):
                    self.log.write("iteration", **entry)
                    self.history = thinned([*self.history, entry])
                release_pages(windows.train_tokens)
                windows.advance()
                self.iteration = 1

    def _train_window(self, task: Task) -> Iterator[dict[str, Any]]:
        config, windows = self.config, self.windows
        while self.iteration <= windows.iterations():
            iteration, rate = self.iteration, None
            if iteration > 1:
                rate = learning_rate(config, iteration, first_window=windows.number == 0)
            generator = torch.Generator().manual_seed(
                self.seed * 1_000_003 + windows.number * 10_007 + iteration
            )
            # Before any reading every incoming context is the same constant, so one parallel sweep
            # yields contexts of one token. The first window learns to contract from being trained
            # towards those; trained towards them again in every window a model forgets faster and
            # faster. Later windows are read exactly first.
            exact = iteration == 1 and windows.number > 0
            terms = self._read(
                windows.train, self.meter, generator, exact=exact, rate=rate, task=task
            )
            with self.saver.interruptible(self.state):
                of_validation, figures = self._measured(generator)
            entry = {
                "validation_terms": {} if rate is None else of_validation,
                **figures,
                "window": windows.number + 1,
                "iteration": iteration,
                "learning_rate": rate or 0.0,
                "sweep_terms": {} if rate is None else terms,
                "gradient_norms": self.meter.norms,
                "weight_change": self.guard.weight_change(self.model.blocks.parameters()),
            }
            entry["stopped_early"] = iteration < windows.iterations() and stops(entry, config)
            self.progress.message(f"{windows.place(iteration)}: {told(entry)}")
            self.iteration, self.meter = iteration + 1, PassMeter()
            yield entry
            if entry["stopped_early"]:
                self.progress.message(
                    f"{windows.place(iteration)}: stopping early, as "
                    f"{entry['converged_ratio']['train']:.1%} of training tokens have converged "
                    f"(phase1.min_converged_ratio {config.min_converged_ratio:g})"
                )
                return

    def _measured(self, generator: torch.Generator) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure at fixed weights: losses on validation text, and what is true of both splits."""
        train, validation = self.windows.train, self.windows.validation
        terms = self._read(validation, PassMeter(), generator, exact=True, rate=None, task=Task())
        tokens = {"train": train.tokens_T, "validation": validation.tokens_T}
        return terms, figures_of_splits(self.model, tokens, self.whole_config, generator)

    def _read(
        self,
        window: Window,
        meter: PassMeter,
        generator: torch.Generator,
        *,
        exact: bool,
        rate: float | None,
        task: Task,
    ) -> dict[str, float]:
        """Read the window once, from where `meter` is, training at `rate` if any: mean losses."""
        self.loss.train(rate is not None)
        is_train = window is self.windows.train
        saver = self.saver if is_train else Saver()
        readings = [
            batches(
                self.model,
                part,
                self.config,
                drawn,
                exact=exact,
                neighbours=self.loss.uses_order,
                skip=meter.batches,
            )
            for part, drawn in window.with_twin(generator)
        ]
        with torch.set_grad_enabled(rate is not None):
            for batch, *twin in zip(*readings, strict=True):
                with saver.step(self.state):
                    self.make_step(window, batch, twin, meter, rate)
                    if is_train:
                        self.statistics = self._statistics()
                    if meter.tokens == len(window) or meter.batches % self.check_every == 0:
                        self._check(meter, window, batch, *twin)
                task.advance(len(batch.positions_N))
                if not meter.unread:
                    saver.maybe_save(self.state)
        window.finish_reading()
        if not torch.isfinite(window.previous_TC).all():
            raise self._diverged("a context", meter.tokens)
        return meter.means()

    def make_step(
        self, window: Window, batch: Batch, twin: list[Batch], meter: PassMeter, rate: float | None
    ) -> None:
        """Read a batch and, if there is a learning rate, make a step; `meter` gets the figures."""
        terms = self.loss.of_batch(window, batch, *twin)
        losses, norm = list(terms.losses.values()), None
        if rate is not None:
            # The first batch and the middle one: two looks cost little, and a term that
            # only matters once weights have moved is seen as well.
            if meter.tokens >= meter.looks * len(window) // 2:
                meter.look(self.guard.gradient_norms(terms.weighted))
            norm = self.step.backward(terms.total, losses)
            if terms.total.requires_grad:
                self.step.apply(norm, rate, losses)
        else:
            collectives.average(losses)
        failed = self.step.failed
        window.store(batch.positions_N, terms.contexts_NC, failed=failed)
        if window.twin is not None and terms.second_NC is not None:
            window.twin.store(batch.positions_N, terms.second_NC, failed=failed)
        meter.count(terms.losses, len(batch.positions_N), norm)

    def _check(self, meter: PassMeter, window: Window, batch: Batch, *twin: Batch) -> None:
        """Fetch the figures of the batches since the last check, of which `batch` is the last.

        Raises:
            DivergedError: one is not finite; weights are those from before that batch.
        """
        if not (bad := meter.read()):
            return
        what = f"loss term {', '.join(name for name in bad if name != NORM)}"
        if bad == [NORM]:
            terms = self.loss.of_batch(window, batch, *twin)
            what = f"the gradient of {' and '.join(self.guard.not_finite(terms.weighted))}"
        raise self._diverged(what, meter.tokens)

    def state(self) -> State:
        """Collect everything that the rest of the run depends on, as it was after the last step.

        Valid at any time except inside the optimizer's own step: what a failed step or the
        measurements after a reading have changed is left out.
        """
        self.meter.read()
        return State(
            self.windows.state(self.iteration - 1)
            | run_state.named("parameter", run_state.whole_parameters(self.parameters))
            | run_state.named("optimizer", run_state.optimizer_tensors(self.step.optimizer))
            | run_state.named("regularizer", self.statistics),
            {
                "window": self.windows.number,
                "iteration": self.iteration,
                "meter": asdict(self.meter),
                "history": self.history,
                "largest_gradients": self.guard.largest,
            },
        )

    def load_state(self, state: State) -> None:
        """Take over what `state` gave, on a trainer that was just made."""
        values = state.values
        self.iteration = values["iteration"]
        self.meter = PassMeter(**values["meter"])
        self.history = values["history"]
        self.guard.largest = values["largest_gradients"]
        run_state.load_parameters(self.parameters, state.part("parameter"))
        run_state.load_optimizer(self.step.optimizer, state.part("optimizer"))
        self.loss.regularizers.load_state_dict(state.part("regularizer"))
        self.statistics = self._statistics()
        self.windows.restore(values["window"], state, self.iteration - 1)

    def _statistics(self) -> dict[str, Tensor]:
        """Copy those of the regularizers, which a step changes also if it fails: then not."""
        failed, before = self.step.failed.bool(), self.statistics
        statistics = self.loss.regularizers.state_dict().items()
        return {name: torch.where(failed, before.get(name, now), now) for name, now in statistics}

    def _diverged(self, what: str, read: int) -> DivergedError:
        return DivergedError(
            f"phase 1 diverged: {what} is not finite (window {self.windows.number + 1}, iteration "
            f"{self.iteration}, after {read:,} tokens); try a lower --learning-rate, "
            "--dist-reg-weight or --init-std" + plugin_at_fault(what, self.config)
        )
