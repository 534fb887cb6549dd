"""The loss of Phase 1: one implementation for every engine, for training and validation.

Shapes: N tokens, C context_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config import Phase1Config
from newllm_core.errors import PluginError
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives as distributed
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.regularizers.base import Regularizer

REGULARIZER = "regularizer"


@dataclass(frozen=True)
class Terms:
    """The weighted sum and what it is made of.

    Of several processes, each has its share of the objective, from which the gradient is made, and
    its rows of the contexts; `shared` of all of them add up to the whole.

    Attributes:
        weighted: name to weight times loss, of every term that the run uses.
        losses: name to loss, for the log.
        contexts_NC: the new contexts of all processes, detached.
    """

    weighted: dict[str, Tensor]
    losses: dict[str, Tensor]
    contexts_NC: Tensor

    @property
    def total(self) -> Tensor:
        """The loss that is minimised."""
        return torch.stack(list(self.weighted.values())).sum()

    @property
    def plain(self) -> dict[str, float]:
        """Name to loss, for the log."""
        return {name: loss.item() for name, loss in self.losses.items()}

    @property
    def shared(self) -> list[Tensor]:
        """What is to be summed over processes."""
        return [*self.losses.values(), self.contexts_NC]


def regularizer_weight(regularizers: list[Regularizer], config: Phase1Config) -> float:
    """The w that was asked for, or the regularizer's own default."""
    weight = config.dist_reg_weight
    return regularizers[0].default_weight if weight is None else weight


def objective_of(config: Phase1Config) -> str:
    """What "auto" means: reconstruction, which keeps contexts diverse, settled and informed.

    With `start="zero"` every reading is the same, and CVFP is exactly 0 at fixed weights: the
    published algorithm, which is kept to be looked at.
    """
    if config.objective != "auto":
        return config.objective
    return "cvfp" if config.start == "zero" else "reconstruction"


class Phase1Loss(nn.Module):
    """`(1 - w) objective + w regularizer` of one batch of tokens.

    The objective is CVFP, `MSE(c_t, stopgrad c_t of the reading before)`, or the reconstruction of
    `[c_{t-1} ; x_t]` from `c_t`. The incoming context is detached: no gradient flows from one token
    to the next. A term of weight 0 is left out.

    Args:
        model: the recurrence.
        regularizers: one for the final context, or one for the context after every layer.
        config: weights and choices.
    """

    def __init__(
        self, model: LanguageModel, regularizers: list[Regularizer], config: Phase1Config
    ) -> None:
        super().__init__()
        self.model = model
        self.regularizers = nn.ModuleList(regularizers)
        self.config = config
        weight = regularizer_weight(regularizers, config)
        self.objective = objective_of(config)
        weights = {self.objective: 1 - weight, REGULARIZER: weight}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    def forward(
        self,
        *,
        incoming_NC: Tensor,
        tokens_N: Tensor,
        target_NC: Tensor,
        shares: Sequence[int] | None = None,
    ) -> Terms:
        """Read `tokens_N` once, each from its own incoming context.

        Every process gives its share of the contexts, and returns the losses of all of them.

        Args:
            incoming_NC: c_{t-1}, of this process's tokens.
            tokens_N: token ids, of all processes.
            target_NC: c_t of the reading before, of this process's tokens.
            shares: how many of the tokens each process reads, where there are several.
        """
        shares = shares or [len(tokens_N)]
        own = distributed.own(shares)
        incoming_NC = incoming_NC.detach()
        x_NE = self.model.embed(tokens_N[own]).detach()
        by_block = self.model.step_layers(context=incoming_NC, token=x_NE)
        final_NC = by_block[-1][-1]
        losses = {}
        if self.objective in self.weights:
            if self.model.decoder is not None:
                losses["reconstruction"] = self.model.decoder.loss(
                    final_NC,
                    previous=incoming_NC,
                    tokens=x_NE,
                    context_weight=self.config.context_weight,
                )
            else:
                losses["cvfp"] = F.mse_loss(final_NC, target_NC.detach())
            losses = {
                name: distributed.share_of_mean(loss, shares) for name, loss in losses.items()
            }
        if REGULARIZER in self.weights:
            every_layer = self.config.apply_to == "every-layer"
            contexts = [c for block in by_block for c in block] if every_layer else [final_NC]
            losses[REGULARIZER] = self._regularize(contexts, tokens_N, shares)
        return Terms(
            weighted={name: self.weights[name] * loss for name, loss in losses.items()},
            losses={name: loss.detach() / distributed.size() for name, loss in losses.items()},
            contexts_NC=distributed.among_all(final_NC.detach(), shares),
        )

    def _regularize(
        self, contexts: list[Tensor], tokens_N: Tensor, shares: Sequence[int]
    ) -> Tensor:
        losses = []
        for regularizer, contexts_NC in zip(self.regularizers, contexts, strict=True):
            if regularizer.distributed:
                tokens_N = tokens_N[distributed.own(shares)]
            else:
                contexts_NC = distributed.gather(contexts_NC, shares)
            with REGULARIZERS.blame(self.config.reg):
                loss = regularizer(contexts_NC, tokens_N=tokens_N)
            if not (isinstance(loss, Tensor) and loss.ndim == 0):
                raise PluginError(
                    f"regularizer {self.config.reg!r} ({type(regularizer).__module__}:"
                    f"{type(regularizer).__name__}) returned no scalar tensor"
                )
            losses.append(loss)
        return torch.stack(losses).mean()
