"""What is true of the model after an iteration: measured on exact contexts, with weights fixed.

Contexts of a sweep are stale (made from what the sweep before left), so none is looked at here.

Shapes: P passages, L tokens each, T tokens of a text, C context_dim.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from newllm_core.analysis.rank import effective_rank
from newllm_core.analysis.sections import mean_cosine
from newllm_core.config import Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import where_exact
from newllm_core.trajectory.sequential import read_to_end, rollout


def figures_of_splits(
    model: LanguageModel, tokens: Mapping[str, Tensor], config: Config, generator: torch.Generator
) -> dict[str, dict[str, float]]:
    """Return each of `model_figures`, by split: of as many tokens, or ranks would not compare."""
    shortest = min(map(len, tokens.values()))
    found = {
        split: model_figures(model, ids, config, generator, shortest)
        for split, ids in tokens.items()
    }
    names = next(iter(found.values()))
    return {name: {split: figures[name] for split, figures in found.items()} for name in names}


@torch.no_grad()
def model_figures(
    model: LanguageModel, tokens_T: Tensor, config: Config, generator: torch.Generator, most: int
) -> dict[str, float]:
    """Read passages spread over a text, from zero with a warm-up, and once more from elsewhere.

    `phase1.convergence_tokens` in passages of `phase1.convergence_steps` are read, each after
    `analysis.warmup_tokens`, as there would be in a text of `most` tokens. The other start is a
    random state of the same scale.

    Returns:
        `effective_rank_ratio` (ER/D), `mean_cosine` of pairs, `norm_ratio` (mean norm over √C), and
        `converged_ratio`, the share of tokens whose context does not depend on the start: the mean
        squared difference of the two is below `phase1.convergence_threshold`. The tokens on which
        the start is forgotten count too, so even a good model stays below 1.
    """
    length = min(config.phase1.convergence_steps, most)
    warmup = min(config.analysis.warmup_tokens, most - length)
    passages = max(1, min(config.phase1.convergence_tokens, most) // length)
    device = tokens_T.device
    # In float32 the last passage of a very long text would begin beyond where it can.
    begins_P = torch.linspace(0, len(tokens_T) - warmup - length, passages, dtype=torch.float64)
    offsets_S = torch.arange(warmup + length, device=device)
    tokens_PS = tokens_T[begins_P.long().to(device)[:, None] + offsets_S]
    own_PC = read_to_end(model, tokens_PS[:, :warmup], model.start(passages))
    random_PC = torch.randn(own_PC.shape, generator=generator, dtype=own_PC.dtype).to(device)
    # Zero has no scale; LayerNorm's stands in for it.
    scale = own_PC.norm(dim=1).mean() if warmup else model.context_dim**0.5
    random_PC *= scale / random_PC.norm(dim=1, keepdim=True)
    # Both in one reading: a step of a few hundred rows costs little more than one of half as many.
    starts = torch.cat([own_PC, random_PC])
    both_PLC = where_exact(rollout(model, tokens_PS[:, warmup:].repeat(2, 1), starts))
    own_PLC, other_PLC = both_PLC.chunk(2)
    squared_PL = (own_PLC - other_PLC).square().mean(dim=-1)
    converged_PL = squared_PL < config.phase1.convergence_threshold
    rows_NC = own_PLC.flatten(0, 1)
    return {
        "effective_rank_ratio": effective_rank(rows_NC) / model.context_dim,
        "mean_cosine": mean_cosine(rows_NC),
        "norm_ratio": float(rows_NC.norm(dim=1).mean()) / model.context_dim**0.5,
        "converged_ratio": float(converged_PL.double().mean()),
    }
