"""Jacobi sweeps: every token of a text at once, from the contexts of the sweep before.

After k sweeps at fixed weights the first k contexts equal the sequential ones exactly; the others
are off by what the recurrence still remembers after k tokens (Gonzalez et al., NeurIPS 2025).

Shapes: T tokens, C context_dim.
"""

import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel

ROWS_AT_ONCE = 8192


def incoming(previous_TC: Tensor, start_C: Tensor, positions: Tensor) -> Tensor:
    """Return c_{t-1} of the sweep before [N, C], for the tokens at `positions` [N]."""
    contexts = previous_TC[(positions - 1).clamp(min=0)]
    return torch.where((positions == 0)[:, None], start_C, contexts)


@torch.no_grad()
def sweep(model: LanguageModel, tokens_T: Tensor, previous_TC: Tensor, start_C: Tensor) -> Tensor:
    """Return one sweep at fixed weights: the contexts [T, C] that follow from `previous_TC`."""
    contexts = torch.empty_like(previous_TC)
    for positions in torch.arange(len(tokens_T), device=tokens_T.device).split(ROWS_AT_ONCE):
        context = incoming(previous_TC, start_C, positions)
        token = model.embed(tokens_T[positions])
        contexts[positions] = model.step(context=context, token=token)[-1]
    return contexts
