"""The loss of Phase 2: token heads, and what the context says about where it came from.

Shapes: N rows (tokens), C context_dim, E embed_dim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.model.heads import weighted_mean
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives as distributed
from newllm_core.parallel.sharding import within
from newllm_core.training.token_loss import token_loss


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


def cross_entropy(
    model: LanguageModel,
    contexts: Sequence[Tensor],
    targets_N: Tensor,
    *,
    weights: Sequence[float],
    dropout: float,
    generator: torch.Generator,
    shares: Sequence[int] | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """`Σ w_k CE_k / Σ w_k` with gradient, and the plain terms.

    Args:
        model: its heads are used.
        contexts: [N, C] for each head, of this process's rows.
        targets_N: the tokens that follow.
        weights: w_k.
        dropout: share of context dimensions that each head misses.
        generator: of the dropout, on the device of the contexts.
        shares: how many rows each process has, where there are several; losses are of all rows.
    """
    shares = shares or [len(targets_N)]
    losses = []
    for head, contexts_NC in zip(model.heads(), contexts, strict=True):
        dropped = drop(head.project(contexts_NC), dropout, generator, shares)
        loss = within(head, token_loss, head, dropped, targets_N)
        losses.append(distributed.mean_of(loss, shares))
    together = weighted_mean(losses, weights)
    plain = {"cross-entropy": together.item()}
    if len(losses) > 1:
        plain |= {f"cross-entropy of head {k}": v.item() for k, v in enumerate(losses, start=1)}
    return together, plain


def drop(
    values_NC: Tensor, share: float, generator: torch.Generator, shares: Sequence[int]
) -> Tensor:
    """Dropout from a random stream of its own, so that a seed says everything.

    Every process draws for the rows of all: what is dropped does not depend on their number. The
    share is kept to 2^-17.
    """
    if share == 0:
        return values_NC
    shape = (sum(shares), values_NC.shape[1])
    # Four decisions from one draw of 64 bits: a Bernoulli draw each takes several times as long.
    drawn = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=values_NC.device)
    drawn.random_(-(2**63), None, generator=generator)
    chance = drawn.view(torch.int16)[: math.prod(shape)].view(shape)[distributed.own(shares)]
    kept = (chance >= round(share * 2**16) - 2**15).to(values_NC.dtype)
    return values_NC * kept.div_(1 - share)


def reconstruction(
    model: LanguageModel, contexts_BTC: Tensor, *, start_BC: Tensor, inputs_BT: Tensor
) -> Tensor:
    """MSE of `decoder(c_t)` and `[c_{t-1} ; x_t]`, whose gradient stops at the target.

    Args:
        model: has a decoder.
        contexts_BTC: c_t after the last block.
        start_BC: the contexts before the first token.
        inputs_BT: the tokens that were read.
    """
    assert model.decoder is not None
    with torch.no_grad():
        previous_BTC = torch.cat([start_BC[:, None], contexts_BTC[:, :-1]], dim=1)
        tokens_BTE = model.embed(inputs_BT)
    return model.decoder.loss(contexts_BTC, previous=previous_BTC, tokens=tokens_BTE)
