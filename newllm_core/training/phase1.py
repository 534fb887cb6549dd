"""Phase 1: train the update so that contexts settle and stay diverse.

Iteration 1 of a window only reads. Every later one compares the contexts with those of the
iteration before (see `objective`), makes a step per batch (see `engines`), and ends with
measurements at fixed weights (see `convergence`). Embeddings and heads are not trained.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from newllm_core.analysis.rank import effective_rank
from newllm_core.config import Config
from newllm_core.errors import ConfigError, DivergedError, PluginError
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.guard import one_line
from newllm_core.progress import Progress, Silent, Task
from newllm_core.registry import REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.runlog import RunLog
from newllm_core.settings import make_section
from newllm_core.training.convergence import converged_ratio
from newllm_core.training.engines import Batch, batches
from newllm_core.training.objective import Phase1Loss, Terms
from newllm_core.training.stages import learning_rate
from newllm_core.training.vacuity import VacuityGuard
from newllm_core.training.window import Window

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


def build_regularizers(config: Config, count: int) -> tuple[list[Regularizer], dict[str, Any]]:
    """`count` regularizers as configured, and their resolved options.

    Raises:
        ConfigError: an unknown name or option.
        PluginError: the plugin cannot be made.
    """
    name = config.phase1.reg
    plugin = REGULARIZERS.load(name)
    options = make_section(plugin.Options, "regularizer", config.regularizer)
    try:
        made = [plugin(config.model.context_dim, options) for _ in range(count)]
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        what = REGULARIZERS.describe(REGULARIZERS.find(name))
        raise PluginError(f"{what} cannot be made: {one_line(error)}") from error
    return made, dataclasses.asdict(options)


def train_phase1(
    model: LanguageModel,
    regularizers: list[Regularizer],
    tokens: Mapping[str, np.ndarray],
    config: Config,
    *,
    device: torch.device,
    log: RunLog | None = None,
    progress: Progress | None = None,
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

    Raises:
        DivergedError: a loss or gradient is not finite.
    """
    return Phase1Trainer(model, regularizers, tokens, config, device, progress or Silent()).run(log)


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
        self.optimizer = torch.optim.Adam(self.parameters, fused=True)
        self.result = Phase1Result()
        self.place = ""

    def run(self, log: RunLog | None) -> Phase1Result:
        """Train on every window in turn."""
        config = self.config
        if config.max_iterations == 0:
            return self.result
        starts = range(0, len(self.train_tokens), config.window_tokens)
        work = len(self.train_tokens) * config.max_iterations
        self.progress.message(
            f"phase 1: {len(self.train_tokens):,} tokens in {len(starts)} window(s), up to "
            f"{config.max_iterations} iterations each: {work:,} tokens to read"
        )
        state_C = self.model.start(1)[0]
        with self.progress.task("phase 1", work, "tokens") as task:
            for number, begin in enumerate(starts):
                ids = self.train_tokens[begin : begin + config.window_tokens]
                window = self.window(ids, state_C)
                for entry in self._train_window(window, number, task):
                    self.result.history.append(entry)
                    if log is not None:
                        log.write("iteration", **entry)
                state_C = window.previous_TC[-1].clone()
        self.result.vacuous_terms = self.guard.vacuous_terms()
        self.result.weight_change = self.guard.weight_change()
        return self.result

    def _train_window(self, window: Window, number: int, task: Task) -> Iterator[dict[str, Any]]:
        config = self.config
        validation = self.window(self.validation_tokens, window.first_C)
        for iteration in range(1, config.max_iterations + 1):
            self.place = f"window {number + 1}, iteration {iteration}"
            generator = torch.Generator().manual_seed(
                self.seed * 1_000_003 + number * 10_007 + iteration
            )
            rate = learning_rate(config, iteration)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            training = iteration > 1
            # A sweep from a constant state makes contexts that ignore their past. The first window
            # learns to contract from being pulled to them; pulled to them again in every window,
            # a model forgets faster and faster. Later windows begin with an exact reading.
            exact = iteration == 1 and number > 0
            terms, norms = self._read(window, generator, training=training, exact=exact, task=task)
            validation_terms, _ = self._read(validation, generator, training=False, exact=exact)
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
                f"iteration {iteration}: {shown} ER/D {ranks['train']:.3f} "
                f"converged {ratios['train']:.0%}",
            )
            yield {
                "window": number + 1,
                "iteration": iteration,
                "learning_rate": rate if training else 0.0,
                "terms": terms if training else {},
                "validation_terms": validation_terms if training else {},
                "gradient_norms": norms,
                "weight_change": self.guard.weight_change(),
                "converged_ratio": ratios,
                "effective_rank_ratio": ranks,
            }
            settled = ratios["train"] >= config.min_converged_ratio
            if settled and iteration >= config.min_iterations:
                self.progress.message(
                    f"window {number + 1}: {ratios['train']:.1%} of tokens converged, stopping "
                    f"after iteration {iteration}"
                )
                return

    def _read(
        self,
        window: Window,
        generator: torch.Generator,
        *,
        training: bool,
        exact: bool,
        task: Task | None = None,
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Read the window once: mean losses, and gradient norms where steps are made."""
        self.loss.train(training)
        sums: dict[str, float] = {}
        norms: dict[str, float] = {}
        probed = 0
        read = 0
        with torch.set_grad_enabled(training):
            for batch in batches(self.model, window, self.config, generator, exact=exact):
                terms = self.terms(window, batch)
                count = len(batch.positions_N)
                for name, value in terms.plain.items():
                    sums[name] = sums.get(name, 0.0) + value * count
                bad = [name for name, value in terms.plain.items() if not np.isfinite(value)]
                if bad:
                    raise self._diverged(f"loss term {', '.join(bad)}", read)
                if training:
                    # The first batch and the middle one: two looks cost little, and a term that
                    # only matters once weights have moved is seen as well.
                    if read >= probed * len(window) // 2:
                        norms = self.guard.gradient_norms(terms.weighted)
                        probed += 1
                    self.step(terms, read)
                window.store(batch.positions_N, terms.contexts_NC)
                read += count
                if task is not None:
                    task.advance(count)
        window.finish_reading()
        if not torch.isfinite(window.previous_TC).all():
            raise self._diverged("a context", read)
        return {name: total / len(window) for name, total in sums.items()}, norms

    def terms(self, window: Window, batch: Batch) -> Terms:
        """The loss of one batch of a window."""
        return self.loss(
            incoming_NC=batch.incoming_NC,
            tokens_N=window.tokens_T[batch.positions_N],
            target_NC=window.previous_TC[batch.positions_N],
        )

    def step(self, terms: Terms, read: int) -> None:
        """One optimizer step, `read` tokens into a reading."""
        total = terms.total
        if not total.requires_grad:
            return
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise self._diverged("the gradient", read)
        # Most steps need no clipping: they are spared the pass over all gradients.
        if 0 < self.config.gradient_clip < norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.gradient_clip, norm)
        self.optimizer.step()

    def _diverged(self, what: str, read: int) -> DivergedError:
        return DivergedError(
            f"phase 1 diverged: {what} is not finite ({self.place}, after {read:,} tokens); "
            "try a lower --learning-rate, --dist-reg-weight or --init-std"
        )

    def window(self, ids: np.ndarray, first_C: Tensor) -> Window:
        """A window of token ids [T] that begins in the state `first_C`."""
        tokens_T = torch.from_numpy(np.asarray(ids, dtype=np.int64)).to(self.device)
        return Window(tokens_T, first_C.to(self.device), self.config.start)

    def _rank_ratio(self, contexts_TC: Tensor) -> float:
        rows = contexts_TC[:: max(1, len(contexts_TC) // RANK_ROWS)]
        return effective_rank(rows) / rows.shape[1]
