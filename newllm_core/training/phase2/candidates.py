"""Comparing what follows with a part of the vocabulary, drawn anew for each step.

A sampled softmax (Jean et al. 2015, arXiv 1412.2007, section 3). Every token that follows any row
is a candidate, and others are drawn from the rest alike. The drawn ones stand for all of the rest,
so their logits are raised by log(rest / drawn): the sum over candidates is right on average. How
many tokens follow is known only when a GPU has found them, so every step waits for it.

Shapes: N rows (tokens), K candidates, C context_dim, V vocabulary.
"""

import math

import torch
from torch import Tensor

from newllm_core.training.phase2.head_loss import HeadLoss


def draw_candidates(
    targets_N: Tensor, vocab_size: int, drawn: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, int]:
    """Choose every target, the tokens that follow in all processes, and `drawn` of the others.

    `generator` is on the device of the targets; as much is drawn whatever these are.

    Returns:
        The candidates [K], targets first and in order; what is added to their logits [K]; how many
        of them are targets.
    """
    device = targets_N.device
    follows_V = torch.zeros(vocab_size, dtype=torch.bool, device=device)
    follows_V.index_fill_(0, targets_N, True)  # `follows_V[targets_N] = True` waits for a GPU
    targets_U = follows_V.nonzero()[:, 0]
    order_V = torch.randperm(vocab_size, generator=generator, device=device)
    others = order_V[~follows_V[order_V]]
    chosen = others[:drawn]
    raised_K = torch.zeros(len(targets_U) + len(chosen), device=device)
    if len(chosen):
        raised_K[len(targets_U) :] = math.log(len(others) / len(chosen))
    return torch.cat([targets_U, chosen]), raised_K, len(targets_U)


def among_candidates(
    head_loss: HeadLoss,
    targets_N: Tensor,
    vocab_size: int,
    drawn: int,
    generator: torch.Generator,
) -> HeadLoss:
    """Return `head_loss` of candidates that are drawn now (see `draw_candidates`), of all if 0."""
    if not drawn:
        return head_loss
    tokens_K, raised_K, num_targets = draw_candidates(targets_N, vocab_size, drawn, generator)

    def sampled(
        weight_VC: Tensor, bias_V: Tensor, contexts_NC: Tensor, targets_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight_KC = weight_VC.index_select(0, tokens_K)
        bias_K = bias_V.index_select(0, tokens_K) + raised_K.to(bias_V.dtype)
        places_N = torch.searchsorted(tokens_K[:num_targets], targets_N)
        return head_loss(weight_KC, bias_K, contexts_NC, places_N)

    return sampled
