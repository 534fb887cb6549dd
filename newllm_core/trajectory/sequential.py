"""Exact trajectories: each stream reads its tokens one after another.

Shapes: B streams, T tokens, K blocks, C context_dim.
"""

import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel

# Embeddings are looked up for so many tokens at a time, so that memory does not grow with T.
EMBEDDED_AT_ONCE = 65_536


def unroll(model: LanguageModel, tokens_BT: Tensor, start_BC: Tensor) -> list[Tensor]:
    """Contexts after every block: K tensors [B, T, C]. Differentiable through time.

    Args:
        model: the recurrence.
        tokens_BT: token ids.
        start_BC: the contexts the streams come from.
    """
    embedded = model.embed(tokens_BT).unbind(1)
    context = start_BC
    steps = []
    with model.fixed_weights():
        for token in embedded:
            contexts = model.step(context=context, token=token)
            context = contexts[-1]
            steps.append(contexts)
    return [torch.stack(of_block, dim=1) for of_block in zip(*steps, strict=True)]


@torch.no_grad()
def rollout(
    model: LanguageModel, tokens_BT: Tensor, start_BC: Tensor, *, warmup: int = 0
) -> Tensor:
    """Final contexts [B, T - warmup, C] without gradients.

    Args:
        model: the recurrence.
        tokens_BT: token ids.
        start_BC: the contexts the streams come from.
        warmup: so many first tokens are read but not returned.
    """
    num_streams, length = tokens_BT.shape
    contexts = start_BC.new_empty(num_streams, length - warmup, model.context_dim)
    context = start_BC
    span = max(1, EMBEDDED_AT_ONCE // num_streams)
    with model.fixed_weights():
        for begin in range(0, length, span):
            embedded = model.embed(tokens_BT[:, begin : begin + span])
            for offset, token in enumerate(embedded.unbind(1)):
                context = model.step(context=context, token=token)[-1]
                if begin + offset >= warmup:
                    contexts[:, begin + offset - warmup] = context
    return contexts
