"""The steps of a whole run of Phase 2: AdamW, one-cycle rate, and no change any more after NaN."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from newllm_core.config import Phase2Config
from newllm_core.errors import DivergedError
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel.collectives import by_sharding
from newllm_core.training.pass_meter import NORM
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.source import Terms
from newllm_core.training.step import OptimizerStep


def trained_parameters(
    model: LanguageModel, extra: ExtraTerms, config: Phase2Config
) -> list[nn.Parameter]:
    """List what Phase 2 changes; a head tied to frozen embeddings keeps its matrix."""
    parts: list[nn.Module] = [model.token_output]
    kept = None if config.train_embeddings else model.embedding.weight
    if not config.freeze_context:
        parts += [model.blocks, model.embedding, extra]
    # A file's embeddings, and what a plugin says is fixed, need no gradient.
    return [p for p in nn.ModuleList(parts).parameters() if p is not kept and p.requires_grad]


@contextmanager
def training_only(model: LanguageModel, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Give no gradient to embeddings and heads beside `parameters`; afterwards as it was before.

    Blocks keep theirs, which no frozen context reaches: autocast rounds a weight once for all
    tokens of a reading only if it may have a gradient.
    """
    trained = set(parameters)
    parts = nn.ModuleList([model.embedding, model.token_output])
    others = [p for p in parts.parameters() if p.requires_grad and p not in trained]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
        model.zero_grad(set_to_none=True)


def one_cycle(step: int, *, total: int, peak: float, warmup_fraction: float) -> float:
    """Return the rate of `step` (0-based): a linear rise to `peak`, a cosine to zero.

    No step has rate zero: the first makes one part of the rise, and after the last step the
    cosine would reach zero.
    """
    warmup = min(round(warmup_fraction * total), total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Steps:
    """Makes the `total` steps of a whole run; only matrices decay.

    Attributes:
        step: steps made.
        learning_rate: of the last step.
        change: makes a step of given gradients.
        gradient_norm: of the last step, before clipping; on the device.
    """

    def __init__(self, parameters: list[nn.Parameter], config: Phase2Config, total: int) -> None:
        self.config = config
        self.total = total
        self.step = 0
        self.learning_rate = 0.0
        self.gradient_norm = torch.zeros(())
        self._terms: list[str] = []
        matrices = [p for p in parameters if p.ndim == 2]
        others = [p for p in parameters if p.ndim != 2]
        groups = [
            {"params": alike, "weight_decay": decay}
            for chosen, decay in ((matrices, config.weight_decay), (others, 0.0))
            for alike in by_sharding(chosen)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.change = OptimizerStep(self.optimizer, config.gradient_clip)

    @property
    def candidates(self) -> int:
        """How many tokens the next step compares with those that follow; 0 for all."""
        sampled = self.config.candidates_share * self.total
        return self.config.candidates if self.step < sampled else 0

    def make(self, terms: Terms) -> None:
        """Make one step down the gradient of `terms`, or of none of the later ones either.

        Where a term or the gradient is not finite the weights stay as they are from then on.
        """
        self._terms, losses = list(terms.plain), list(terms.plain.values())
        self.gradient_norm = self.change.backward(terms.total, losses)
        self.learning_rate = one_cycle(
            self.step,
            total=self.total,
            peak=self.config.learning_rate,
            warmup_fraction=self.config.warmup_fraction,
        )
        self.change.apply(self.gradient_norm, self.learning_rate, losses)
        self.step += 1

    def diverged(self, bad: Sequence[str]) -> DivergedError:
        """Word what was not finite in the step after those that were made."""
        what = ", ".join(name for name in bad if name != NORM)
        what = what or f"the gradient of {' and '.join(self._terms)}"
        return DivergedError(
            f"phase 2 diverged: {what} is not finite (step {self.step + 1} of "
            f"{self.total}); try a lower --learning-rate"
        )
