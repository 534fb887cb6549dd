"""What is measured before the first epoch and after each one.

Shapes: P passages, T tokens of each, S = T + 1 contexts in a row, C context_dim.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts, exploded, read_splits
from newllm_core.analysis.examiner import Examiner
from newllm_core.analysis.recurrence import ModelRecurrence
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.errors import DivergedError
from newllm_core.evaluation.splits import evaluate, evaluate_splits
from newllm_core.model.language_model import LanguageModel
from newllm_core.objectives.base import tokens_at
from newllm_core.parallel import collectives
from newllm_core.runtime.progress import Progress
from newllm_core.training.phase2.extra_terms import ExtraTerms

Figures = dict[str, Any]


@dataclass(frozen=True)
class Measurements:
    """Text of a dataset that is predicted, and what became of the memory on probes."""

    model: LanguageModel
    extra: ExtraTerms
    checkpoint: Checkpoint
    dataset: PreparedDataset
    config: Config
    head_weights: Sequence[float]
    progress: Progress

    def after(self, epoch: int) -> Figures:
        """Measure the model after an epoch, on a part of the text.

        Returns:
            `train` and `validation` (see `evaluate_splits`) and, unless contexts are frozen,
            `memory` (see `Examiner.remembered`) and `validation_terms`, on validation probes.

        Raises:
            DivergedError: a loss is not finite.
        """
        figures = evaluate_splits(
            self.model,
            self.dataset,
            head_weights=self.head_weights,
            max_tokens=self.config.phase2.eval_tokens,
            progress=self.progress,
        )
        for split, reached in figures.items():
            _require_finite(epoch, split, reached)
        shown = "; ".join(_shown(split, figures[split]) for split in ("train", "validation"))
        self.progress.message(f"epoch {epoch}/{self.config.phase2.epochs}: {shown}")
        if not self.config.phase2.freeze_context:
            figures |= self._memory(epoch)
        return figures

    def whole_validation(self, epoch: int) -> Figures:
        """Predict all of validation.

        Raises:
            DivergedError: the loss is not finite.
        """
        figures = evaluate(
            self.model,
            self.dataset.validation,
            end_id=int(self.dataset.info.end_id),
            head_weights=self.head_weights,
            progress=self.progress,
            label="evaluating validation",
        )
        _require_finite(epoch, "validation", figures)
        return figures

    @torch.no_grad()
    def _memory(self, epoch: int) -> Figures:
        began = time.perf_counter()
        recurrence = ModelRecurrence(self.model)
        probes, warmup = self.checkpoint.probes, self.checkpoint.warmup
        splits = read_splits(recurrence, {"validation": probes["validation"]}, warmup)
        if exploded(splits):
            raise _diverged("contexts are", epoch)
        read = splits["validation"]
        found = Examiner(self.config, warmup).remembered(recurrence, read)
        terms = self._terms(read) if self.extra.weights else {}
        seconds = time.perf_counter() - began
        text = (
            f"memory after epoch {epoch}: ER/D {found['effective_rank_ratio']:.3f}, "
            f"λ {found['lyapunov_exponent']:+.3f}, {found['tokens_remembered']:.2f} tokens "
            f"remembered (validation probes, {seconds:.1f} s)"
        )
        for name, value in terms.items():
            text += f"; {name} {value:.3f} on validation, weight {self.extra.weights[name]:g}"
        self.progress.message(text)
        return {"memory": found, "validation_terms": terms}

    def _terms(self, read: ProbeContexts) -> dict[str, float]:
        trajectory_PSC = read.trajectory.to(self.model.device)
        contexts_PTC = trajectory_PSC[:, 1:]
        inputs_PT = read.tokens[:, -contexts_PTC.shape[1] :].to(self.model.device)
        found = self.extra.eval()(
            self.model,
            contexts_PTC,
            start_BC=trajectory_PSC[:, 0],
            inputs_BT=inputs_PT,
            streams=[len(inputs_PT)] * collectives.size(),
            others=partial(_others, inputs_PT, int(self.dataset.info.end_id)),
        )
        self.extra.train()
        return {name: float(term) for name, term in found.items()}


def _others(inputs_PT: Tensor, end_id: int, offset: int) -> Tensor:
    """Look up the tokens `offset` places after each that is read, within its passage [P * T]."""
    places_T = torch.arange(inputs_PT.shape[1], device=inputs_PT.device)
    found = [
        tokens_at(tokens_T.__getitem__, len(tokens_T), places_T, offset, end_id)
        for tokens_T in inputs_PT
    ]
    return torch.cat(found)


def _require_finite(epoch: int, split: str, figures: Figures) -> None:
    if not math.isfinite(figures["loss"]):
        raise _diverged(f"the {split} loss is", epoch)


def _diverged(what: str, epoch: int) -> DivergedError:
    return DivergedError(
        f"phase 2 diverged: {what} not finite after epoch {epoch}; try a lower --learning-rate"
    )


def _shown(split: str, figures: Figures) -> str:
    bits = figures["bits_per_byte"]
    text = f"{split} loss {figures['loss']:.3f}, perplexity {figures['perplexity'] or math.inf:.1f}"
    text += f", accuracy {figures['accuracy']:.1%}"
    if bits is not None:
        text += f", {bits:.3f} ± {figures['bits_per_byte_stderr']:.3f} bits per byte"
    return text
