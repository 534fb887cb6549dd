"""Phase 2: train token heads, and unless contexts are frozen everything below them too.

Before the first epoch and after each one a part of training and validation text is evaluated by the
same function, always the same part, so that epochs are compared on equal tokens. The weights with
the best validation loss are the ones that are kept, be they the first, and evaluated whole.
"""

import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from newllm_core.checkpoint import run_state
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.run_state import State
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.kernels.door import choose
from newllm_core.model.heads import head_weights
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import steps_between_checks
from newllm_core.training.pass_meter import NORM, PassMeter
from newllm_core.training.phase2.context_store import ContextStore
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.training.phase2.frozen import FrozenContexts
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.measure import Measurements
from newllm_core.training.phase2.steps import Steps
from newllm_core.training.saver import Saver

# Random state, state of the source and statistics of the regularizer, after a step.
Mark = tuple[torch.Tensor, State, dict[str, torch.Tensor]]
# Lines of step figures that an epoch adds to the run's log.
STEPS_LOGGED = 100


class Phase2Trainer:
    """The loop: epochs and steps. `run.train_phase2` is the way in."""

    def __init__(
        self,
        model: LanguageModel,
        extra: ExtraTerms,
        checkpoint: Checkpoint,
        dataset: PreparedDataset,
        config: Config,
        parameters: list[torch.nn.Parameter],
        saver: Saver,
    ) -> None:
        self.model = model
        self.extra = extra
        self.config = config.phase2
        self.seed = config.run.seed
        self.parameters = parameters
        self.saver, self.progress, self.log = saver, saver.progress, saver.log
        self.tokens = dataset.train.tokens[: self.config.max_tokens]
        self.end_id = int(dataset.info.end_id)
        self.weights = head_weights(self.config.head_weights, model.num_heads)
        like = model.embedding.weight
        self.generator = torch.Generator(like.device).manual_seed(self.seed)
        self.epoch = 1
        self.meter = PassMeter()
        self.check_every = steps_between_checks(config.run, like.device)
        kernels = config.run.kernels
        self.head_loss = choose("cross-entropy", plain_cross_entropy, like, setting=kernels)
        self.measure = Measurements(
            model, extra, checkpoint, dataset, config, self.weights, self.progress
        )
        self.history: list[dict[str, Any]] = []
        self.best = 0
        self.kept = self._weights()

    def open_source(self, stack: ExitStack) -> None:
        """Make what an epoch reads; `stack` closes it."""
        config = self.config
        count = sum(p.numel() for p in self.parameters)
        self.progress.message(
            f"phase 2: {'heads on frozen contexts' if config.freeze_context else 'fine-tuning'}, "
            f"{count:,} parameters, {len(self.tokens):,} tokens in each of up to "
            f"{config.epochs} epochs: {len(self.tokens) * config.epochs:,} tokens to read"
        )
        common: dict[str, Any] = {
            "end_id": self.end_id,
            "config": config,
            "weights": self.weights,
            "head_loss": self.head_loss,
        }
        if config.freeze_context:
            shape = (self.model.num_heads, self.model.context_dim)
            scratch, device = self.saver.scratch, self.model.device
            store = stack.enter_context(ContextStore(scratch, len(self.tokens), shape, device))
            frozen = FrozenContexts(self.model, self.tokens, store=store, seed=self.seed, **common)
            # Not part of the state: the same weights make the same contexts again.
            if config.epochs > 0:
                with self.saver.immediately():
                    frozen.fill(self.progress)
            self.source: FrozenContexts | FineTuning = frozen
        else:
            if self.model.config.tie_weights and not self.model.embedding.weight.requires_grad:
                self.progress.warning(
                    "the last head is tied to embeddings that are not trained: only its bias learns"
                )
            self.source = FineTuning(self.model, self.tokens, extra=self.extra, **common)
        self.steps = Steps(self.parameters, config, self.source.num_steps * config.epochs)
        self.marks = [self._mark()]

    def train(self) -> dict[str, Any]:
        """Make the epochs that are left; the figures of all of them."""
        if not self.history:
            self.history.append(self._figures(0, {}))
        while self.epoch <= self.config.epochs:
            training, rate = self._epoch()
            self.history.append(self._figures(self.epoch, training))
            # Not among the figures of the checkpoint: the same seed makes the same file.
            self.log.write("speed", epoch=self.epoch, tokens_per_second=rate)
            if self._loss_of(self.epoch) < self._loss_of(self.best):
                self.best, self.kept = self.epoch, self._weights()
            elif self.epoch - self.best >= self.config.patience:
                self.progress.message(
                    f"stopping early after epoch {self.epoch}: no better validation loss for "
                    f"{self.config.patience} epoch(s), the best was epoch {self.best}"
                )
                self.epoch = self.config.epochs
            self.epoch += 1
            self.meter = PassMeter()
            self.source.begin_epoch()
            self.marks = [self._mark()]
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.kept, strict=True):
                parameter.copy_(value)
        best = self.history[self.best]
        whole = {split: best[split] for split in ("train", "validation")}
        if whole["validation"]["num_tokens"] < len(self.measure.dataset.validation.tokens):
            with self.saver.interruptible(self.state):
                whole["validation"] = self.measure.whole_validation(self.best)
        return {**whole, "best_epoch": best["epoch"], "epochs": self.history}

    def _loss_of(self, epoch: int) -> float:
        return float(self.history[epoch]["validation"]["loss"])

    def _epoch(self) -> tuple[dict[str, Any], float | None]:
        """Read the rest of an epoch: mean losses of all of it, and tokens per second if any."""
        source, steps, meter = self.source, self.steps, self.meter
        every = max(self.check_every, source.num_steps // STEPS_LOGGED)
        begun, read_before = time.perf_counter(), meter.tokens
        label = f"epoch {self.epoch}/{self.config.epochs}"
        with self.progress.task(label, source.num_tokens - read_before, "tokens") as task:
            losses = source.losses(self.generator, skip=meter.batches)
            while True:
                with self.saver.step(self.state):
                    source.candidates = self.steps.candidates
                    terms = next(losses, None)
                    if terms is not None:
                        steps.make(terms)
                        meter.count(terms.plain, terms.num_tokens, steps.gradient_norm)
                        self.marks.append(self._mark())
                    logged = steps.step % every == 0
                    due = terms is None or logged or meter.batches % self.check_every == 0
                    if due and (bad := self._fetch()):
                        raise steps.diverged(bad)
                if terms is None:
                    break
                figures = {name: meter.last[name] for name in terms.plain if name in meter.last}
                shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
                task.advance(terms.num_tokens, shown)
                if logged:
                    self.log.write(
                        "step",
                        step=steps.step,
                        epoch=self.epoch,
                        learning_rate=steps.learning_rate,
                        gradient_norm=meter.last[NORM],
                        terms=figures,
                    )
                if not meter.unread:
                    self.saver.maybe_save(self.state)
        rate = None
        if meter.tokens > read_before:
            rate = (meter.tokens - read_before) / (time.perf_counter() - begun)
            self.progress.message(f"{label}: {meter.tokens:,} tokens at {rate:,.0f} tokens/s")
        return {"terms": meter.means()}, rate

    def _mark(self) -> Mark:
        """Return what a step changes even if it fails."""
        regularizer = self.extra.regularizer
        statistics = {} if regularizer is None else regularizer.state_dict()
        copied = {name: tensor.clone() for name, tensor in statistics.items()}
        return self.generator.get_state(), self.source.state(), copied

    def _fetch(self) -> list[str]:
        """Fetch figures; forgets the steps from the first on that has any which are not finite."""
        made, checked = self.meter.batches, self.meter.batches - len(self.meter.unread)
        bad = self.meter.read()
        self.steps.step -= made - self.meter.batches
        self.marks = [self.marks[self.meter.batches - checked]]
        return bad

    def state(self) -> State:
        """Return everything that the rest of the run depends on, as it was after the last step."""
        self._fetch()
        random_state, source_state, statistics = self.marks[0]
        return State(
            {"generator": random_state}
            | run_state.named("parameter", run_state.whole_parameters(self.parameters))
            | run_state.named("kept", run_state.whole_parameters(self.kept))
            | run_state.named("optimizer", run_state.optimizer_tensors(self.steps.optimizer))
            | run_state.named("source", source_state.tensors)
            | run_state.named("regularizer", statistics),
            {
                "epoch": self.epoch,
                "step": self.steps.step,
                "meter": asdict(self.meter),
                "history": self.history,
                "best": self.best,
                "source": source_state.values,
            },
        )

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        values = state.values
        self.epoch, self.best = values["epoch"], values["best"]
        self.meter = PassMeter(**values["meter"])
        self.history = values["history"]
        self.steps.step = values["step"]
        run_state.load_parameters(self.parameters, state.part("parameter"))
        run_state.load_parameters(self.kept, state.part("kept"))
        run_state.load_optimizer(self.steps.optimizer, state.part("optimizer"))
        drawn = state.tensors["generator"]
        if drawn.shape == self.generator.get_state().shape:
            self.generator.set_state(drawn)
        else:  # of another kind of device, whose numbers this one cannot draw
            self.generator.manual_seed(self.seed + self.steps.step)
        if self.extra.regularizer is not None:
            self.extra.regularizer.load_state_dict(state.part("regularizer"))
        self.source.load_state(State(state.part("source"), values["source"]))
        self.marks = [self._mark()]

    def _figures(self, epoch: int, training: dict[str, Any]) -> dict[str, Any]:
        """Return what was measured after `epoch`."""
        with self.saver.interruptible(self.state):
            entry = {"epoch": epoch, **training, **self.measure.after(epoch)}
        self.log.write("epoch", **entry)
        return entry

    def _weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]
