"""How a loss becomes a step: AdamW, one-cycle rate, clipping, and a refusal to go on from NaN."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from newllm_core.config import Phase2Config
from newllm_core.errors import DivergedError
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives as distributed
from newllm_core.training.phase2.schedule import one_cycle
from newllm_core.training.phase2.terms import Terms


def trained_parameters(model: LanguageModel, config: Phase2Config) -> list[nn.Parameter]:
    """What Phase 2 changes; a head tied to an embedding that is not trained keeps its matrix."""
    parts: list[nn.Module] = [model.token_output]
    kept: nn.Parameter | None = None
    if not config.freeze_context:
        parts.append(model.blocks)
        if config.reconstruction_weight > 0 and model.decoder is not None:
            parts.append(model.decoder)
        if config.train_embeddings and model.config.embeddings == "random":
            parts.append(model.embedding)
        else:
            kept = model.embedding.get_parameter("weight")
    unique = {id(p): p for part in parts for p in part.parameters()}
    return [p for p in unique.values() if p is not kept]


@contextmanager
def training_only(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Gradients for `parameters` and no others; afterwards as it was before."""
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


class Stepper:
    """Makes the steps of a whole run.

    Args:
        model: whose embedding is told apart: it does not decay.
        parameters: what is trained.
        config: of Phase 2.
        total_steps: of the schedule.

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
        total_steps: int,
    ) -> None:
        self.parameters = parameters
        self.config = config
        self.total_steps = total_steps
        self.step = 0
        self.learning_rate = 0.0
        self.gradient_norm = 0.0
        matrices = [p for p in parameters if p.ndim == 2 and p is not model.embedding.weight]
        others = [p for p in parameters if p.ndim != 2 or p is model.embedding.weight]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.learning_rate, fused=True
        )

    def make(self, terms: Terms) -> None:
        """One step down the gradient of `terms`.

        Raises:
            DivergedError: a term or the gradient is not finite; the weights are not touched.
        """
        bad = [name for name, value in terms.plain.items() if not abs(value) < float("inf")]
        if bad:
            raise self._diverged(", ".join(bad))
        self.optimizer.zero_grad(set_to_none=True)
        if terms.total.requires_grad:  # not where this process has no row of the batch
            terms.total.backward()
        distributed.average_gradients(self.parameters)
        norm = distributed.gradient_norm(self.parameters)
        self.gradient_norm = norm.item()
        if not self.gradient_norm < float("inf"):
            raise self._diverged(f"the gradient of {' and '.join(terms.plain)}")
        # Clipping at 0 would train nothing: it means no limit.
        if 0 < self.config.gradient_clip < self.gradient_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.gradient_clip, norm)
        self.learning_rate = one_cycle(
            self.step,
            total=self.total_steps,
            peak=self.config.learning_rate,
            warmup_fraction=self.config.warmup_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.step += 1

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"phase 2 diverged: {what} is not finite (step {self.step + 1} of "
            f"{self.total_steps}); try a lower --learning-rate"
        )
