"""The steps of a whole run of Phase 2: AdamW, one-cycle rate, and a refusal to go on from NaN."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from newllm_core.config import Phase2Config
from newllm_core.errors import DivergedError
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.schedule import one_cycle
from newllm_core.training.phase2.terms import Terms
from newllm_core.training.step import OptimizerStep, by_sharding


def trained_parameters(
    model: LanguageModel, extra: ExtraTerms, config: Phase2Config
) -> list[nn.Parameter]:
    """List what Phase 2 changes; a head tied to frozen embeddings keeps its matrix."""
    parts: list[nn.Module] = [model.token_output]
    kept: nn.Parameter | None = None
    if not config.freeze_context:
        parts.append(model.blocks)
        if config.train_embeddings and model.config.embeddings_file is None:
            parts.append(model.embedding)
        else:
            kept = model.embedding.get_parameter("weight")
        parts.append(extra)
    unique = {id(p): p for part in parts for p in part.parameters()}
    return [p for p in unique.values() if p is not kept]


@contextmanager
def training_only(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Give gradients to `parameters` and no others of the model; afterwards as it was before."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
            parameter.grad = None


class Steps:
    """Makes the steps of a whole run.

    Args:
        model: whose embedding is told apart: it does not decay.
        parameters: what is trained.
        config: of Phase 2.
        total: steps of the schedule.

    Attributes:
        step: steps made.
        learning_rate: of the last step.
        gradient_norm: of the last step, before clipping.
    """

    def __init__(
        self,
        model: LanguageModel,
        parameters: list[nn.Parameter],
        config: Phase2Config,
        total: int,
    ) -> None:
        self.config = config
        self.total = total
        self.step = 0
        self.learning_rate = 0.0
        self.gradient_norm = 0.0
        matrices = [p for p in parameters if p.ndim == 2 and p is not model.embedding.weight]
        others = [p for p in parameters if p.ndim != 2 or p is model.embedding.weight]
        groups = [
            {"params": alike, "weight_decay": decay}
            for chosen, decay in ((matrices, config.weight_decay), (others, 0.0))
            for alike in by_sharding(chosen)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self._change = OptimizerStep(self.optimizer, config.gradient_clip)

    def make(self, terms: Terms) -> None:
        """Make one step down the gradient of `terms`.

        Raises:
            DivergedError: a term or the gradient is not finite; the weights are not touched.
        """
        bad = [name for name, value in terms.plain.items() if not abs(value) < float("inf")]
        if bad:
            raise self._diverged(", ".join(bad))
        norm = self._change.backward(terms.total)
        self.gradient_norm = norm.item()
        if not self.gradient_norm < float("inf"):
            raise self._diverged(f"the gradient of {' and '.join(terms.plain)}")
        self.learning_rate = one_cycle(
            self.step,
            total=self.total,
            peak=self.config.learning_rate,
            warmup_fraction=self.config.warmup_fraction,
        )
        self._change.apply(norm, self.learning_rate)
        self.step += 1

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"phase 2 diverged: {what} is not finite (step {self.step + 1} of "
            f"{self.total}); try a lower --learning-rate"
        )
