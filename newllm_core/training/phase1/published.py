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
    """Read token ids once from the zero state; yield the loss of each token after its step.

    Targets are `previous_TC`, the contexts of the reading before; `weight` is that of the
    regularizer. Initial weights and embeddings are those of `model`, which is not changed.
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
