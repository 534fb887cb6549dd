"""The loss of Phase 2: token heads, and an objective or regularizer beside them.

Shapes: N rows (tokens), C context_dim, E embed_dim, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.model.heads import weighted_mean
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import within
from newllm_core.runtime.precision import at_least_float32

HeadLoss = Callable[[nn.Linear, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Terms:
    """One step's loss.

    Attributes:
        total: what is minimised; carries the gradient.
        plain: every term before weighting, by name; "cross-entropy" is that of the heads together.
        num_tokens: rows it is the mean over.
    """

    total: Tensor
    plain: dict[str, float]
    num_tokens: int


def plain_cross_entropy(
    head: nn.Linear, contexts_NC: Tensor, targets_N: Tensor, odds_N: Tensor | None = None
) -> Tensor:
    """Compute mean nats per token of a linear head, in float32 at least.

    With `odds_N` that is the mean of `-log(p + exp(odds))` for a target's probability p.
    """
    logits_NV = at_least_float32(F.linear(contexts_NC, head.weight, head.bias))
    if odds_N is None:
        return F.cross_entropy(logits_NV, targets_N)
    nats_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    return -torch.logaddexp(-nats_N, odds_N).mean()


def cross_entropy(
    model: LanguageModel,
    contexts: Sequence[Tensor],
    targets_N: Tensor,
    *,
    weights: Sequence[float],
    dropout: float,
    generator: torch.Generator,
    counted_N: Tensor | None = None,
    rows_per_rank: Sequence[int] | None = None,
    head_loss: HeadLoss = plain_cross_entropy,
) -> tuple[Tensor, dict[str, float]]:
    """Compute `Σ w_k CE_k / Σ w_k` with gradient, and the plain terms.

    Args:
        model: its heads are used.
        contexts: [N, C] for each head, of this process's rows.
        targets_N: the tokens that follow.
        weights: w_k.
        dropout: share of context dimensions that each head misses.
        generator: of the dropout, on the device of the contexts.
        counted_N: what the model's bigrams say of the targets, if it has any (see `counted`).
        rows_per_rank: how many rows each process has, where there are several; losses are of all.
        head_loss: `plain_cross_entropy` or a form of it.
    """
    rows = rows_per_rank or [len(targets_N)]
    losses = []
    for head, contexts_NC in zip(model.heads(), contexts, strict=True):
        with model.narrow_products():
            dropped = drop(head.project(contexts_NC), dropout, generator, rows)
            if counted_N is None or head.gate is None:
                loss = within(head, head_loss, head, dropped, targets_N, None)
            else:
                # (1 - g) p + g q is (1 - g) (p + exp(gate) q).
                gate_N = at_least_float32(within(head, head.gate, contexts_NC))[:, 0]
                loss = within(head, head_loss, head, dropped, targets_N, gate_N + counted_N)
                loss = loss + F.softplus(gate_N).mean()
        losses.append(collectives.mean_of(loss, rows))
    together = weighted_mean(losses, weights)
    plain = {"cross-entropy": together.item()}
    if len(losses) > 1:
        plain |= {f"cross-entropy of head {k}": v.item() for k, v in enumerate(losses, start=1)}
    return together, plain


def counted(
    model: LanguageModel,
    inputs_N: Tensor,
    targets_N: Tensor,
    positions_N: np.ndarray,
    counted_tokens: int | None,
) -> Tensor | None:
    """Look up what the model's bigrams say of training tokens [N]; None if it has none.

    Args:
        model: whose bigrams were counted in the first `counted_tokens` of the training text.
        inputs_N: the tokens read last.
        targets_N: those that follow.
        positions_N: where those are; a place that was counted is left out of its own counts.
        counted_tokens: None is all.
    """
    if model.bigrams is None:
        return None
    own_N = (
        np.ones(len(positions_N), bool) if counted_tokens is None else positions_N < counted_tokens
    )
    device = inputs_N.device
    return model.bigrams.log_probability(
        inputs_N, targets_N, counted_N=torch.from_numpy(own_N).to(device)
    )


def drop(
    values_NC: Tensor, share: float, generator: torch.Generator, rows: Sequence[int]
) -> Tensor:
    """Drop values from a random stream of its own, so that a seed says everything.

    Every process draws for the rows of all: what is dropped does not depend on their number. The
    share is kept to 2^-17.
    """
    if share == 0:
        return values_NC
    shape = (sum(rows), values_NC.shape[1])
    # Four decisions from one draw of 64 bits: a Bernoulli draw each takes several times as long.
    drawn = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=values_NC.device)
    drawn.random_(-(2**63), None, generator=generator)
    chance = drawn.view(torch.int16)[: math.prod(shape)].view(shape)[collectives.own(rows)]
    kept = (chance >= round(share * 2**16) - 2**15).to(values_NC.dtype)
    return values_NC * kept.div_(1 - share)
