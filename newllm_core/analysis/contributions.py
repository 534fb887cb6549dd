"""Contribution of each token of a passage to the state at its end.

A token is replaced by another one of the text, and the rest is read as it stands: how far is the
state at the end from what it would have been, relative to its norm? 0: the token has left no
trace.

Shapes: P passages, L tokens of each, M substitutes, U token types, C context_dim.
"""

from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.dynamics import selected
from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.summary import mean_and_error
from newllm_core.config import AnalysisConfig

PASSAGES = 4
SUBSTITUTES = 4
# Numbers of the states that are held at once: longer ones get fewer passages and substitutes.
HELD_NUMBERS = 2**24


@torch.no_grad()
def contributions(
    recurrence: Recurrence, read: ProbeContexts, config: AnalysisConfig, *, seed: int
) -> dict[str, Any] | None:
    """Replace every token of a few passages of a split, one at a time.

    Returns:
        `by_lag`: the mean over passages for the last token, the one before and so on;
        `stderr_by_lag`; `tokens` of the first passage and for each its part `by_token`. None where
        there is one kind of token only.
    """
    types_U = torch.unique(read.tokens)
    if len(types_U) < 2:
        return None
    _, tokens_PT, start_PC = selected(read, config)
    length = min(config.contribution_tokens, tokens_PT.shape[1])
    held = max(1, HELD_NUMBERS // (recurrence.context_dim * length))
    passages = min(len(tokens_PT), PASSAGES, held)
    substitutes = max(1, min(SUBSTITUTES, held // passages))
    tokens_PL = tokens_PT[:passages, :length]
    other_PLM = _others(tokens_PL, read.tokens.flatten(), types_U, substitutes, seed)
    moved_PLM = _moved(recurrence, tokens_PL, other_PLM, start_PC[:passages])
    by_lag = [mean_and_error(of_lag) for of_lag in moved_PLM.flip(1).unbind(1)]
    return {
        "by_lag": [figure["mean"] for figure in by_lag],
        "stderr_by_lag": [figure["stderr"] for figure in by_lag],
        "tokens": tokens_PL[0].tolist(),
        "by_token": moved_PLM[0].mean(dim=1).tolist(),
    }


def _others(tokens_PL: Tensor, text_N: Tensor, types_U: Tensor, count: int, seed: int) -> Tensor:
    """Draw tokens of the text [P, L, M], none of them the one it stands for."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*tokens_PL.shape, count)
    drawn = torch.randint(len(text_N), shape, generator=generator).to(text_N.device)
    shift = torch.randint(1, len(types_U), shape, generator=generator).to(text_N.device)
    other_PLM, own_PLM = text_N[drawn], tokens_PL[:, :, None].expand(shape)
    another = types_U[(torch.searchsorted(types_U, own_PLM.contiguous()) + shift) % len(types_U)]
    return torch.where(other_PLM == own_PLM, another, other_PLM)


def _moved(
    recurrence: Recurrence, tokens_PL: Tensor, other_PLM: Tensor, start_PC: Tensor
) -> Tensor:
    """Return the relative distances that the substitutes make [P, L, M], float64."""
    passages, length, count = other_PLM.shape
    # Rows of every substitute so far [P, rows, C]: each begins where its token is read.
    context_PC, rows_PRC = start_PC, start_PC[:, None][:, :0]
    for token_P, other_PM in zip(tokens_PL.unbind(1), other_PLM.unbind(1), strict=True):
        before_PRC = torch.cat([rows_PRC, context_PC[:, None].expand(-1, count + 1, -1)], dim=1)
        rows = rows_PRC.shape[1]
        ids = [token_P[:, None].expand(-1, rows), other_PM, token_P[:, None]]
        read = recurrence.read(before_PRC.flatten(0, 1), torch.cat(ids, dim=1).flatten())
        read_PRC = read.view(passages, -1, read.shape[1])
        context_PC, rows_PRC = read_PRC[:, -1], read_PRC[:, :-1]
    exact_PK = recurrence.kept(context_PC).double()
    kept_PRK = recurrence.kept(rows_PRC.flatten(0, 1)).view(passages, length * count, -1)
    apart_PR = (kept_PRK.double() - exact_PK[:, None]).norm(dim=2)
    size_P1 = exact_PK.norm(dim=1, keepdim=True).clamp(min=1e-300)
    return (apart_PR / size_P1).view(passages, length, count)
