"""The published Phase 1 loop, kept to be read and to be measured against.

Batch one, one optimizer step per token, plain Adam: every token moves all weights and both moments
through memory. `engines` computes the same losses.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.model.language_model import LanguageModel
from newllm_core.regularizers.base import Regularizer


def published_phase1(
    model: LanguageModel,
    regularizer: Regularizer,
    tokens_T: Tensor,
    previous_TC: Tensor,
    *,
    weight: float,
    learning_rate: float,
    gradient_clip: float,
) -> Iterator[float]:
    """Read `tokens_T` once from the zero state; yield the loss of each token after its step.

    Args:
        model: where the initial weights and the embeddings come from; it is not changed.
        regularizer: gets one context at a time.
        tokens_T: token ids [T].
        previous_TC: contexts of the reading before, the targets.
        weight: w of the regularizer.
        learning_rate: of plain Adam.
        gradient_clip: largest gradient norm.
    """
    blocks = copy.deepcopy(model.blocks)
    optimizer = torch.optim.Adam(blocks.parameters(), lr=learning_rate, foreach=False)
    context = model.start(1)
    for position in range(len(tokens_T)):
        token_id = tokens_T[position : position + 1]
        new = blocks(context=context, token=model.embed(token_id).detach())[-1][-1]
        cvfp = F.mse_loss(new, previous_TC[position : position + 1])
        loss = (1 - weight) * cvfp + weight * regularizer(new, tokens_N=token_id)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(blocks.parameters(), gradient_clip)
        optimizer.step()
        context = new.detach()
        yield loss.item()
