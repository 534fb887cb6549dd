"""Phase 1: train the update so that contexts settle and stay diverse.

Iteration 1 of a window only reads. Every later one compares the contexts with those of the
iteration before (see `objective`), makes a step per batch (see `engines`), and ends with
measurements at fixed weights (see `convergence`). Embeddings and heads are not trained.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newllm_core import native
from newllm_core.analysis.rank import effective_rank
from newllm_core.checkpoint.run_state import (
    State,
    load_optimizer,
    named,
    optimizer_tensors,
    restoring,
)
from newllm_core.config import Config
from newllm_core.cores import undivided
from newllm_core.data.mapped import forget_pages
from newllm_core.errors import DivergedError
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives as distributed
from newllm_core.parallel.dtensors import divided_as, whole
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.progress import Progress, Silent, Task
from newllm_core.runtime.runlog import RunLog
from newllm_core.training.descent import Descent, NarrowDescent, OneRowDescent
from newllm_core.training.pass_meter import Reading
from newllm_core.training.phase1.convergence import converged_ratio
from newllm_core.training.phase1.engines import Batch, batches
from newllm_core.training.phase1.loss import REGULARIZER, Phase1Loss, Terms
from newllm_core.training.phase1.stages import learning_rate
from newllm_core.training.phase1.vacuity import VacuityGuard
from newllm_core.training.phase1.window import Window
from newllm_core.training.resume import Saver

# Enough rows for ER/D at every preset; the figures of the checkpoint are measured on its probes.
RANK_ROWS = 8192


@dataclass
class Phase1Result:
    """What happened.

    Attributes:
        history: one mapping per iteration.
        vacuous_terms: loss terms that never had a gradient.
        weight_change: distance of the weights from their initial values, relative to those.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    vacuous_terms: list[str] = field(default_factory=list)
    weight_change: float = 0.0


def train_phase1(
    model: LanguageModel,
    regularizers: list[Regularizer],
    tokens: Mapping[str, np.ndarray],
    config: Config,
    *,
    device: torch.device,
    log: RunLog | None = None,
    progress: Progress | None = None,
    saver: Saver | None = None,
    resumed: State | None = None,
) -> Phase1Result:
    """Train `model` in place.

    Args:
        model: gets its blocks (and decoder) trained.
        regularizers: one, or one per layer (`apply_to`).
        tokens: token ids [T] of "train" and "validation".
        config: uses the sections `phase1` and `run`.
        device: where to compute.
        log: gets one line per iteration.
        progress: is told how far it is.
        saver: saves the state of the run.
        resumed: the state to continue from; model and regularizers are as for a new run.

    Raises:
        DivergedError: a loss or gradient is not finite.
        Interrupted: the run was asked to stop; its state is saved.
    """
    trainer = Phase1Trainer(model, regularizers, tokens, config, device, progress or Silent())
    trainer.saver = saver
    if resumed is not None:
        with restoring(resumed):
            trainer.load_state(resumed)
    return trainer.run(log)


class Phase1Trainer:
    """The loop: windows, iterations, batches. `train_phase1` is the way in."""

    def __init__(
        self,
        model: LanguageModel,
        regularizers: list[Regularizer],
        tokens: Mapping[str, np.ndarray],
        config: Config,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.config = config.phase1
        self.seed = config.run.seed
        self.device = device
        self.progress = progress
        self.train_tokens = tokens["train"][: self.config.max_tokens]
        self.validation_tokens = tokens["validation"][: self.config.convergence_tokens]
        self.loss = Phase1Loss(model, regularizers, self.config).to(device)
        self.model = model
        trained = [model.blocks] if model.decoder is None else [model.blocks, model.decoder]
        self.parameters = [p for part in trained for p in part.parameters()]
        self.guard = VacuityGuard(self.parameters)
        alone = distributed.size() == 1 and device.type == "cpu"
        self.is_one_row = alone and self.config.engine == "online"
        descent = NarrowDescent if alone and native.library() is not None else Descent
        if self.is_one_row:
            descent = OneRowDescent
        self.descent = descent(self.parameters, self.config.gradient_clip)
        self.result = Phase1Result()
        self.saver: Saver | None = None
        self.number = 0
        self.iteration = 1
        self.reading = Reading()
        self.train_window = self.window(self._ids(), self.model.start(1)[0])
        self.validation_window = self._validation_window()
        self.statistics = self._statistics()

    def run(self, log: RunLog | None) -> Phase1Result:
        """Train on every window in turn."""
        config = self.config
        if config.max_iterations == 0:
            return self.result
        work = self._work(len(self.train_tokens))
        self.progress.message(
            f"phase 1: {len(self.train_tokens):,} tokens in {self._num_windows} window(s), up to "
            f"{config.max_iterations} iterations of the first: {work:,} tokens to read"
        )
        with self.progress.task("phase 1", work - self._tokens_read(), "tokens") as task:
            while self.number < self._num_windows:
                for entry in self._train_window(task):
                    self.result.history.append(entry)
                    if log is not None:
                        log.write("iteration", **entry)
                self._next_window()
        self.result.vacuous_terms = self.guard.vacuous_terms()
        self.result.weight_change = self.guard.weight_change()
        return self.result

    @property
    def _num_windows(self) -> int:
        return -(-len(self.train_tokens) // self.config.window_tokens)

    def _ids(self) -> np.ndarray:
        begin = self.number * self.config.window_tokens
        return self.train_tokens[begin : begin + self.config.window_tokens]

    def _validation_window(self) -> Window:
        return self.window(self.validation_tokens, self.train_window.first_C)

    def _next_window(self) -> None:
        self.number += 1
        self.iteration = 1
        forget_pages(self.train_tokens)
        state_C = self.train_window.previous_TC[-1].clone()
        if self.number < self._num_windows:
            self.train_window = self.window(self._ids(), state_C)
            self.validation_window = self._validation_window()

    def _tokens_read(self) -> int:
        """Tokens that need not be read any more, of those that a run reads at most."""
        before = self._work(self.number * self.config.window_tokens)
        return before + (self.iteration - 1) * len(self.train_window) + self.reading.tokens

    def _work(self, tokens: int) -> int:
        """Tokens to read, at most, for the first `tokens` of the text."""
        first = min(tokens, self.config.window_tokens)
        return first * self._iterations_of(0) + (tokens - first) * self._iterations_of(1)

    def _iterations_of(self, number: int) -> int:
        """Iterations of a window, at most. Later windows are new text, not a new task."""
        config = self.config
        later = min(config.max_iterations, config.later_iterations)
        return config.max_iterations if number == 0 else later

    def _train_window(self, task: Task) -> Iterator[dict[str, Any]]:
        config, window, validation = self.config, self.train_window, self.validation_window
        while self.iteration <= self._iterations_of(self.number):
            iteration = self.iteration
            generator = torch.Generator().manual_seed(
                self.seed * 1_000_003 + self.number * 10_007 + iteration
            )
            rate = learning_rate(config, iteration, first_window=self.number == 0)
            for group in self.descent.optimizer.param_groups:
                group["lr"] = rate
            training = iteration > 1
            # A sweep from a constant state makes contexts that ignore their past. The first window
            # learns to contract from being pulled to them; pulled to them again in every window,
            # a model forgets faster and faster. Later windows begin with an exact reading.
            exact = iteration == 1 and self.number > 0
            terms = self._read(
                window, self.reading, generator, training=training, exact=exact, task=task
            )
            with self.saver.interruptible(self.state) if self.saver else nullcontext():
                validation_terms = self._read(
                    validation, Reading(), generator, training=False, exact=exact
                )
                ratios = {
                    "train": converged_ratio(self.model, window, config, generator),
                    "validation": converged_ratio(self.model, validation, config, generator),
                }
                ranks = {
                    "train": self._rank_ratio(window.previous_TC),
                    "validation": self._rank_ratio(validation.previous_TC),
                }
            shown = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
            task.advance(
                0,
                f"iteration {iteration}: ER/D {ranks['train']:.3f} "
                f"converged {ratios['train']:.0%} {shown}",
            )
            entry = {
                "window": self.number + 1,
                "iteration": iteration,
                "learning_rate": rate if training else 0.0,
                "terms": terms if training else {},
                "validation_terms": validation_terms if training else {},
                "gradient_norms": self.reading.norms,
                "weight_change": self.guard.weight_change(),
                "converged_ratio": ratios,
                "effective_rank_ratio": ranks,
            }
            self.iteration, self.reading = iteration + 1, Reading()
            yield entry
            settled = ratios["train"] >= config.min_converged_ratio
            if settled and iteration >= config.min_iterations:
                self.progress.message(
                    f"window {self.number + 1}: {ratios['train']:.1%} of tokens converged, "
                    f"stopping after iteration {iteration}"
                )
                return

    def _read(
        self,
        window: Window,
        reading: Reading,
        generator: torch.Generator,
        *,
        training: bool,
        exact: bool,
        task: Task | None = None,
    ) -> dict[str, float]:
        """Read the window once, from where `reading` is: mean losses."""
        self.loss.train(training)
        saver = self.saver if task is not None else None
        with torch.set_grad_enabled(training), self.descent.finished_afterwards():
            for batch in batches(
                self.model, window, self.config, generator, exact=exact, skip=reading.batches
            ):
                with saver.step(self.state) if saver else nullcontext():
                    terms = self._batch(window, batch, reading, training=training)
                reading.count(terms.plain, len(batch.positions_N))
                if task is not None:
                    task.advance(len(batch.positions_N))
                if saver is not None:
                    self.statistics = self._statistics()
                    saver.point(self.state)
        window.finish_reading()
        if not torch.isfinite(window.previous_TC).all():
            raise self._diverged("a context", reading.tokens)
        return reading.means()

    def _batch(self, window: Window, batch: Batch, reading: Reading, *, training: bool) -> Terms:
        terms = self.terms(window, batch)
        if training:
            # The first batch and the middle one: two looks cost little, and a term that
            # only matters once weights have moved is seen as well.
            if reading.tokens >= reading.looks * len(window) // 2:
                reading.norms = self.guard.gradient_norms(terms.weighted)
                reading.looks += 1
            stepped = self.step(terms)
        else:
            distributed.sum_up(terms.shared)
        bad = [name for name, value in terms.plain.items() if not np.isfinite(value)]
        if bad:
            raise self._diverged(f"loss term {', '.join(bad)}", reading.tokens)
        if training and not stepped:
            raise self._diverged(self._gradient_at_fault(window, batch), reading.tokens)
        window.store(batch.positions_N, terms.contexts_NC)
        return terms

    def state(self) -> State:
        """Everything that the rest of the run depends on, as it was after the last step.

        Valid at any time except inside the optimizer's own step: what a failed step or the
        measurements after a reading have changed is left out.
        """
        self.descent.finish()
        tensors = {str(index): whole(p.detach()) for index, p in enumerate(self.parameters)}
        return State(
            {"first_C": self.train_window.first_C}
            | named("parameter", tensors)
            | named("optimizer", optimizer_tensors(self.descent.optimizer))
            | named("regularizer", self.statistics)
            | named("window", self.train_window.state(self.iteration - 1))
            | named("validation", self.validation_window.state(self.iteration - 1)),
            {
                "window": self.number,
                "iteration": self.iteration,
                "reading": dataclasses.asdict(self.reading),
                "history": self.result.history,
                "largest_gradients": self.guard.largest,
            },
        )

    def load_state(self, state: State) -> None:
        """The reverse of `state`, on a trainer that was just made."""
        values = state.values
        self.number, self.iteration = values["window"], values["iteration"]
        self.reading = Reading(**values["reading"])
        self.result.history = values["history"]
        self.guard.largest = values["largest_gradients"]
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters):
                parameter.copy_(divided_as(parameter, state.tensors[f"parameter.{index}"]))
        load_optimizer(self.descent.optimizer, state.part("optimizer"))
        self.loss.regularizers.load_state_dict(state.part("regularizer"))
        self.statistics = self._statistics()
        self.train_window = self.window(self._ids(), state.tensors["first_C"])
        self.train_window.restore(state.part("window"), self.iteration - 1)
        self.validation_window = self._validation_window()
        self.validation_window.restore(state.part("validation"), self.iteration - 1)

    def _statistics(self) -> dict[str, Tensor]:
        """Of the regularizers: the one thing that a step changes before it can fail."""
        statistics = self.loss.regularizers.state_dict()
        return {name: value.clone() for name, value in statistics.items()}

    def terms(self, window: Window, batch: Batch) -> Terms:
        """The loss of one batch of a window."""
        with undivided(look_out=True) if self.is_one_row else nullcontext():
            return self.loss(
                incoming_NC=batch.incoming_NC,
                tokens_N=window.tokens_T[batch.positions_N],
                target_NC=window.previous_TC[batch.positions_N[batch.own]],
                shares=batch.shares,
            )

    def step(self, terms: Terms) -> bool:
        """One optimizer step; none, and false, if a loss or the gradient is not finite.

        Makes the losses and contexts of `terms` those of all processes.
        """
        total = terms.total
        if not total.requires_grad:
            distributed.sum_up(terms.shared)
            return True
        norm = self.descent.backward(total, terms.shared)
        if not np.isfinite([norm.item(), *terms.plain.values()]).all():
            return False
        self.descent.step(norm)
        return True

    def _gradient_at_fault(self, window: Window, batch: Batch) -> str:
        """The terms whose gradient is not finite, once it is known that there are any."""
        terms = self.terms(window, batch).weighted
        bad = [name for name, term in terms.items() if not np.isfinite(self.guard.norm_of(term))]
        return f"the gradient of {' and '.join(bad or terms)}"

    def _diverged(self, what: str, read: int) -> DivergedError:
        return DivergedError(
            f"phase 1 diverged: {what} is not finite (window {self.number + 1}, iteration "
            f"{self.iteration}, after {read:,} tokens); "
            "try a lower --learning-rate, --dist-reg-weight or --init-std"
            + self._plugin_at_fault(what)
        )

    def _plugin_at_fault(self, what: str) -> str:
        """Words about the regularizer where `what` names its loss and it is not newllm's own."""
        if REGULARIZER not in what:
            return ""
        plugin = REGULARIZERS.find(self.config.reg)
        return "" if plugin.is_own else f", or mend {REGULARIZERS.describe(plugin)}"

    def window(self, ids: np.ndarray, first_C: Tensor) -> Window:
        """A window of token ids [T] that begins in the state `first_C`."""
        tokens_T = torch.from_numpy(np.asarray(ids, dtype=np.int64)).to(self.device)
        return Window(tokens_T, first_C.to(self.device), self.config.start)

    def _rank_ratio(self, contexts_TC: Tensor) -> float:
        rows = contexts_TC[:: max(1, len(contexts_TC) // RANK_ROWS)]
        return effective_rank(rows) / rows.shape[1]
