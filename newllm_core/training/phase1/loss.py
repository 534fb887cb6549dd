"""The loss of Phase 1: one implementation for every engine, for training and validation.

Shapes: N tokens, C context_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from newllm_core.config import Phase1Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.objectives.base import EMBEDDING_MATRIX, Objective
from newllm_core.parallel import collectives
from newllm_core.parallel.collectives import full_tensor
from newllm_core.plugins.registry import OBJECTIVES, REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.training.phase1.engines import Batch
from newllm_core.training.phase1.windows import Window
from newllm_core.training.plugin_terms import plugin_loss

REGULARIZER = "regularizer"


@dataclass(frozen=True)
class Terms:
    """The weighted sum and what it is made of.

    Of several processes, each has its share of the objective, from which the gradient is made.

    Attributes:
        weighted: weight times loss of every term that the run uses, by name.
        losses: the losses by name, without gradient.
        contexts_NC: the new contexts of all processes, detached.
        second_NC: those of the second reading, if there is one.
    """

    weighted: dict[str, Tensor]
    losses: dict[str, Tensor]
    contexts_NC: Tensor
    second_NC: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """Return the loss that is minimised."""
        return torch.stack(list(self.weighted.values())).sum()


def num_regularizers(model: LanguageModel, config: Phase1Config) -> int:
    """Return how many regularizers there are: one, or one of each layer."""
    return len(model.cells()) if config.apply_to == "every-layer" else 1


def regularizer_weight(regularizers: Sequence[Regularizer], config: Phase1Config) -> float:
    """Return the w that was asked for, or the regularizer's own default."""
    weight = config.dist_reg_weight
    return regularizers[0].default_weight if weight is None else weight


def plugin_at_fault(what: str, config: Phase1Config) -> str:
    """Word advice about a plugin where `what` names its loss and it is not newllm's own."""
    for name, registry, chosen in (
        (REGULARIZER, REGULARIZERS, config.reg),
        (config.objective, OBJECTIVES, config.objective),
    ):
        plugin = registry.find(chosen) if name in what else None
        if plugin is not None and not plugin.is_own:
            return f", or mend {registry.describe(plugin)}"
    return ""


class Phase1Loss(nn.Module):
    """`(1 - w) objective + w regularizer` of one batch of tokens.

    The incoming context is detached: no gradient flows from one token to the next. A term of
    weight 0 is left out. There is one regularizer for the final context, or one for the context
    after every layer.
    """

    def __init__(
        self,
        model: LanguageModel,
        objective: Objective,
        regularizers: Sequence[Regularizer],
        config: Phase1Config,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.regularizers = nn.ModuleList(regularizers)
        self.config = config
        weight = regularizer_weight(regularizers, config)
        weights = {config.objective: 1 - weight, REGULARIZER: weight}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def reads(self) -> Sequence[str]:
        """Return what the objective wants to be given, if it counts."""
        return list(self.objective.reads) if self.config.objective in self.weights else []

    @property
    def uses_order(self) -> bool:
        """Say whether the regularizer, if it counts, compares neighbours in the text."""
        return REGULARIZER in self.weights and any(r.uses_order for r in self.regularizers)

    def of_batch(self, window: Window, batch: Batch, twin: Batch | None = None) -> Terms:
        """Read a batch of a window once, each token from its own incoming context.

        Of several processes, each reads its share and has the contexts of all. `twin` is the batch
        of a second reading.
        """
        rows, name = batch.rows_per_rank, self.config.objective
        tokens_N, incoming_NC = window.tokens_T[batch.positions_N], batch.incoming_NC.detach()
        second_NC = None if twin is None else self._read_twin(window, twin)
        own_second_nC = None if second_NC is None else second_NC[batch.own]
        read = window.read(self.reads, batch.positions_N[batch.own], own_second_nC)
        with self.model.narrow_products(len(incoming_NC)):
            x_NE = self.model.embed(tokens_N[batch.own]).detach()
            by_block = self.model.step_layers(context=incoming_NC, token=x_NE)
            final_NC = by_block[-1][-1]
            losses = {}
            if name in self.weights:
                if EMBEDDING_MATRIX in self.objective.reads:
                    read[EMBEDDING_MATRIX] = full_tensor(self.model.embedding.weight.detach())
                read |= {"final_NC": final_NC, "incoming_NC": incoming_NC, "embedded_NE": x_NE}
                loss = plugin_loss(OBJECTIVES, name, self.objective, **read)
                losses[name] = collectives.share_of_mean(loss, rows)
            all_NC = collectives.gather(final_NC, rows)
            if REGULARIZER in self.weights:
                every_layer = self.config.apply_to == "every-layer"
                contexts = [c for of_block in by_block for c in of_block] if every_layer else []
                contexts = [collectives.gather(c, rows) for c in contexts[:-1]] + [all_NC]
                reg = partial(plugin_loss, REGULARIZERS, self.config.reg, tokens_N=tokens_N)
                pairs = zip(self.regularizers, contexts, strict=True)
                terms = [reg(cast(Regularizer, r), contexts_ND=c) for r, c in pairs]
                losses[REGULARIZER] = torch.stack(terms).mean()
        return Terms(
            weighted={name: self.weights[name] * loss for name, loss in losses.items()},
            losses={name: loss.detach() for name, loss in losses.items()},
            contexts_NC=all_NC.detach(),
            second_NC=second_NC,
        )

    @torch.no_grad()
    def _read_twin(self, window: Window, batch: Batch) -> Tensor:
        """Read the tokens once more, from the twin's contexts [N, C]."""
        token_NE = self.model.embed(window.tokens_T[batch.positions_N[batch.own]])
        contexts_NC = self.model.step(context=batch.incoming_NC, token=token_NE)[-1]
        return collectives.gather(contexts_NC, batch.rows_per_rank)
