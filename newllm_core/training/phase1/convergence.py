"""Whether contexts depend on where the recurrence was started: measured, with weights fixed.

Shapes: P passages, L tokens each, C context_dim.
"""

import torch
from torch import Tensor

from newllm_core.analysis.rank import effective_rank
from newllm_core.config import Phase1Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase1.window import Window
from newllm_core.trajectory.sequential import rollout

# Enough rows for ER/D at every preset; the figures of the checkpoint are measured on its probes.
RANK_ROWS = 8192


def effective_rank_ratio(window: Window) -> float:
    """Measure ER/D of the contexts that the last reading left."""
    rows = window.previous_TC[:: max(1, len(window) // RANK_ROWS)]
    return effective_rank(rows) / rows.shape[1]


@torch.no_grad()
def converged_ratio(
    model: LanguageModel, window: Window, config: Phase1Config, generator: torch.Generator
) -> float:
    """Return the share of tokens whose context is the same from a different start state.

    Passages spread over the window are read twice at the same weights: from the context that the
    last reading left before them, and from a random state of the same scale. A token has converged
    when the mean squared difference of its two contexts is below `convergence_threshold`. The
    tokens on which the start is forgotten count too, so even a good model stays below 1.
    """
    length = min(config.convergence_steps, len(window))
    passages = max(1, min(config.convergence_tokens, len(window)) // length)
    device = window.tokens_T.device
    begins_P = torch.linspace(0, len(window) - length, passages, device=device).long()
    tokens_PL = window.tokens_T[begins_P[:, None] + torch.arange(length, device=device)]
    before = (begins_P - 1).clamp(min=0)
    own_PC = torch.where((begins_P == 0)[:, None], window.first_C, window.previous_TC[before])
    scale = window.previous_TC.norm(dim=1).mean()
    random_PC = torch.randn(own_PC.shape, generator=generator, dtype=own_PC.dtype).to(device)
    random_PC *= scale / random_PC.norm(dim=1, keepdim=True)
    # Both in one reading: a step of a few hundred rows costs little more than one of half as many.
    both = rollout(model, tokens_PL.repeat(2, 1), torch.cat([own_PC, random_PC]))
    own_PLC, other_PLC = both.chunk(2)
    return _share_below(own_PLC - other_PLC, config.convergence_threshold)


def _share_below(difference_PLC: Tensor, threshold: float) -> float:
    squared_PL = difference_PLC.square().mean(dim=-1)
    return (squared_PL < threshold).float().mean().item()
