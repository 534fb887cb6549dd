"""What both ways of Phase 2 read: training text, and the loss of the heads in it.

Shapes: N rows (tokens), T tokens of a text, C context_dim.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.config import Phase2Config
from newllm_core.model.heads import TokenHead, weighted_mean
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import within
from newllm_core.runtime.device import to_device
from newllm_core.runtime.precision import at_least_float32
from newllm_core.training.phase2.candidates import among_candidates
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy
from newllm_core.trajectory.text import inputs_at


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


@dataclass(eq=False)
class Source:
    """Training text [T], and `cross_entropy` of the model's heads: what both ways begin with.

    Attributes:
        end_id: the token that closes a document.
        weights: of the heads.
        candidates: how many tokens the targets of the next step are compared with; 0 is all.
    """

    model: LanguageModel
    tokens: np.ndarray
    _: KW_ONLY
    end_id: int
    config: Phase2Config
    weights: Sequence[float]
    head_loss: HeadLoss = plain_cross_entropy
    candidates: int = field(default=0, init=False)

    def cross_entropy(
        self,
        contexts: Sequence[Tensor],
        inputs_N: Tensor,
        targets_N: Tensor,
        positions_N: np.ndarray,
        *,
        generator: torch.Generator,
        rows: Sequence[int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute `Σ w_k CE_k / Σ w_k` with gradient, and the plain terms.

        Each head reads its contexts [N, C] of this process's `rows`, and `inputs_N`, the tokens
        read last there, and guesses `targets_N`, those at `positions_N`. Where heads are mixed with
        bigrams the gates' losses are added; what is told is the mixture's.
        """
        counted_N = counted(self.model, inputs_N, targets_N, positions_N)
        followers = collectives.gather(targets_N, rows) if self.candidates else targets_N
        given = self.model.vocab_size, self.candidates, generator
        head_loss = among_candidates(self.head_loss, followers, *given)
        share = self.config.head_dropout
        inside = partial(drop, share=share, generator=generator, rows=rows)
        losses: list[Tensor] = []
        mixtures: list[Tensor] = []
        for head, contexts_NC in zip(self.model.heads(), contexts, strict=True):
            with self.model.narrow_products():
                made_NE = within(head, head.project, contexts_NC, inputs_N, inside)
                dropped = drop(made_NE, self.config.dropout, generator, rows)
                loss, nats_N = within(head, _nats, head_loss, head, dropped, targets_N)
                losses.append(collectives.share_of_mean(loss, rows))
                if counted_N is not None and head.gate is not None:
                    gate_N = at_least_float32(within(head, head.gate, contexts_NC.detach()))[:, 0]
                    loss = mixture_loss(nats_N, gate_N, counted_N)
                    mixtures.append(collectives.share_of_mean(loss, rows))
        told = mixtures or losses
        plain = {"cross-entropy": weighted_mean(told, self.weights).detach()}
        if len(losses) > 1:
            plain |= {f"cross-entropy of head {k}": v.detach() for k, v in enumerate(told, start=1)}
        total = weighted_mean(losses, self.weights)
        return total + torch.stack(mixtures).sum() if mixtures else total, plain

    def tokens_at(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Look up the tokens before some positions, and those at them, of the same shape."""
        device = self.model.device
        before = inputs_at(self.tokens, positions, self.end_id)
        at_them = self.tokens[positions].astype(np.int64)
        return (
            to_device(torch.from_numpy(before), device),
            to_device(torch.from_numpy(at_them), device),
        )


def _nats(
    head_loss: HeadLoss, head: TokenHead, contexts_NC: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    return head_loss(head.weight, head.bias, contexts_NC, targets_N)


def mixture_loss(nats_N: Tensor, gate_N: Tensor, counted_N: Tensor) -> Tensor:
    """Compute the mean nats of `(1 - g) p + g q`, with g = σ(gate), p the head's and q the counts'.

    Only the gate learns from it: `nats_N` = -log p has no gradient, and the head has its own loss.
    Trained by the mixture, a head would learn least where counts are trusted, fall behind them
    there, and so be trusted even less.

    Shapes: -log p, gate and log q [N].
    """
    own_N = F.logsigmoid(-gate_N) - nats_N
    return -torch.logaddexp(own_N, F.logsigmoid(gate_N) + counted_N).mean()


def counted(
    model: LanguageModel, inputs_N: Tensor, targets_N: Tensor, positions_N: np.ndarray
) -> Tensor | None:
    """Look up what the model's bigrams say of `targets_N` after `inputs_N`; None if it has none.

    A place that was counted (one of the first `counted_tokens`, if that is set) is left out of its
    own counts.
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
    shape, device = (sum(rows), values_NC.shape[1]), values_NC.device
    if device.type == "mps":  # it draws no 64 bits
        drawn = torch.empty(math.prod(shape), dtype=torch.int16, device=device)
        drawn.random_(-(2**15), 2**15, generator=generator)
    else:
        # Four decisions from one draw: a Bernoulli draw each takes several times as long.
        drawn = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=device)
        drawn.random_(-(2**63), None, generator=generator)
    chance = drawn.view(torch.int16)[: math.prod(shape)].view(shape)[collectives.own(rows)]
    kept = (chance >= round(share * 2**16) - 2**15).to(values_NC.dtype)
    return values_NC * kept.div_(1 - share)
