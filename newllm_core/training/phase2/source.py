"""What both ways of Phase 2 read: training text, and the loss of the heads in it.

Shapes: N rows (tokens), T tokens of a text, C context_dim.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from newllm_core.config import Phase2Config
from newllm_core.model.heads import TokenHead, weighted_mean
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import within
from newllm_core.runtime.device import to_device
from newllm_core.runtime.precision import at_least_float32
from newllm_core.training.phase2.candidates import among_candidates
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy
from newllm_core.training.phase2.terms import drop, mixture_loss
from newllm_core.trajectory.text import inputs_at


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
        *,
        generator: torch.Generator,
        rows: Sequence[int],
        counted_N: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute `Σ w_k CE_k / Σ w_k` with gradient, and the plain terms.

        Each head reads its contexts [N, C] of this process's `rows`, and `inputs_N`, the tokens
        read last there. Where heads are mixed with bigrams, `counted_N` is what those say (see
        `counted`), and the gates' losses are added; what is told is the mixture's.
        """
        followers = collectives.gather(targets_N, rows) if self.candidates else targets_N
        given = self.model.vocab_size, self.candidates, generator
        head_loss = among_candidates(self.head_loss, followers, *given)
        inside = None
        if share := self.config.head_dropout:
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
        device = self.model.embedding.weight.device
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
