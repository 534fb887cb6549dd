"""The loss of Phase 2: token heads, and an objective or regularizer beside them.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.model.heads import TokenHead, weighted_mean
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import within
from newllm_core.runtime.device import to_device
from newllm_core.runtime.precision import at_least_float32
from newllm_core.training.phase2.candidates import among_candidates
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy


@dataclass(frozen=True)
class Terms:
    """One step's loss; of several processes, each has its share.

    Attributes:
        total: what is minimised; carries the gradient.
        plain: every term before weighting, without gradient, by name; "cross-entropy" is that of
            the heads together.
        num_tokens: rows it is the mean over.
    """

    total: Tensor
    plain: dict[str, Tensor]
    num_tokens: int


def cross_entropy(
    model: LanguageModel,
    contexts: Sequence[Tensor],
    inputs_N: Tensor,
    targets_N: Tensor,
    *,
    weights: Sequence[float],
    dropout: float,
    head_dropout: float = 0,
    generator: torch.Generator,
    counted_N: Tensor | None = None,
    rows_per_rank: Sequence[int] | None = None,
    head_loss: HeadLoss = plain_cross_entropy,
    candidates: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute `Σ w_k CE_k / Σ w_k` with gradient, and the plain terms.

    Each head reads its contexts [N, C] of this process's rows, and `inputs_N`, the tokens read last
    there; a share of `dropout` of what it makes of them is missing, and of `head_dropout` inside a
    hidden layer. Where heads are mixed with bigrams, `counted_N` is what those say (see `counted`),
    and the gates' losses are added; what is told is the mixture's. Targets are compared with so
    many `candidates`; 0 is all.
    """
    rows = rows_per_rank or [len(targets_N)]
    if candidates:
        followers = collectives.gather(targets_N, rows)
        head_loss = among_candidates(head_loss, followers, model.vocab_size, candidates, generator)
    inside = None
    if head_dropout:
        inside = partial(drop, share=head_dropout, generator=generator, rows=rows)
    losses: list[Tensor] = []
    mixtures: list[Tensor] = []
    for head, contexts_NC in zip(model.heads(), contexts, strict=True):
        with model.narrow_products():
            made_NE = within(head, head.project, contexts_NC, inputs_N, inside)
            dropped = drop(made_NE, dropout, generator, rows)
            loss, nats_N = within(head, _nats, head_loss, head, dropped, targets_N)
            losses.append(collectives.share_of_mean(loss, rows))
            if counted_N is not None and head.gate is not None:
                gate_N = at_least_float32(within(head, head.gate, contexts_NC.detach()))[:, 0]
                loss = mixture_loss(nats_N, gate_N, counted_N)
                mixtures.append(collectives.share_of_mean(loss, rows))
    told = mixtures or losses
    plain = {"cross-entropy": weighted_mean(told, weights).detach()}
    if len(losses) > 1:
        plain |= {f"cross-entropy of head {k}": v.detach() for k, v in enumerate(told, start=1)}
    total = weighted_mean(losses, weights)
    return total + torch.stack(mixtures).sum() if mixtures else total, plain


def _nats(
    head_loss: HeadLoss, head: TokenHead, contexts_NC: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    return head_loss(head.weight, head.bias, contexts_NC, targets_N)


def mixture_loss(nats_N: Tensor, gate_N: Tensor, counted_N: Tensor) -> Tensor:
    """Compute the mean nats of `(1 - g) p + g q`, g = σ(gate), for p that is not to change by it.

    A head that were trained for what is left by the counts would soon be no match for them, and a
    gate that closes teaches it nothing any more; so heads learn as they do without counts.
    """
    own_N = F.logsigmoid(-gate_N) - nats_N
    return -torch.logaddexp(own_N, F.logsigmoid(gate_N) + counted_N).mean()


def counted(
    model: LanguageModel, inputs_N: Tensor, targets_N: Tensor, positions_N: np.ndarray
) -> Tensor | None:
    """Look up what the model's bigrams say of `targets_N` after `inputs_N`; None if it has none.

    The targets are training tokens at `positions_N`: a place that was counted (one of the first
    `counted_tokens`, if that is set) is left out of its own counts.
    """
    if model.bigrams is None:
        return None
    limit = model.config.counted_tokens
    own_N = torch.from_numpy(positions_N < (math.inf if limit is None else limit))
    own_N = to_device(own_N, inputs_N.device)
    return model.bigrams.log_probability(inputs_N, targets_N, counted_N=own_N)


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
