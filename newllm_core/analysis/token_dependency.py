"""What tokens do to contexts.

Token dependency: the same context, different tokens; how different are the results? Contribution of
a token to the state at the end of its passage: how far does that move, relative to its norm, if the
token is replaced by another one of the text? 0: it has left no trace.

Shapes: R contexts, M tokens or substitutes, P passages, L tokens of each, U types, C context_dim.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.summary import mean_and_error
from newllm_core.config import AnalysisConfig
from newllm_core.errors import InputError

ROWS_AT_ONCE = 4096
# Numbers of contexts that are held at once: longer ones get fewer passages and substitutes.
HELD_NUMBERS = 2**24
PASSAGES = 4
SUBSTITUTES = 4


@torch.no_grad()
def token_dependency(
    recurrence: Recurrence,
    contexts_NC: Tensor,
    tokens: Tensor,
    config: AnalysisConfig,
    *,
    seed: int,
) -> dict[str, float]:
    """Let sampled contexts read sampled types of `tokens`, and compare what becomes of each.

    `mean_cosine`, `std_cosine` and `mean_l2` are taken over contexts and pairs of different tokens:
    1, 0 and 0 for a model that ignores its tokens. `stderr` is that of the mean cosine.

    Raises:
        InputError: a token id that was asked for is not in the vocabulary.
    """
    generator = torch.Generator().manual_seed(seed)
    types = torch.unique(tokens)
    if config.token_ids:
        types = _asked(types, recurrence.vocabulary(), config)
    elif len(types) < 2:  # one type says nothing about tokens: compare it with the vocabulary
        every = recurrence.vocabulary()
        types = types if every is None else every
    contexts_RC = _sample(contexts_NC, config.dependency_contexts, generator)
    wanted = len(types) if config.token_ids else config.dependency_tokens
    token_M = _sample(types, wanted, generator).to(contexts_NC.device)
    count = len(token_M)
    if count < 2:
        return {"mean_cosine": 1.0, "std_cosine": 0.0, "mean_l2": 0.0, "stderr": 0.0}
    by_context, by_token = [], torch.zeros(count).double()
    distances = squares = 0.0
    rows = min(ROWS_AT_ONCE, HELD_NUMBERS // recurrence.context_dim)
    for some_rC in contexts_RC.split(max(1, rows // count)):
        each_RC = some_rC.repeat_interleave(count, dim=0)
        after_RC = recurrence.read(each_RC, token_M.repeat(len(some_rC)))
        after_rMC = after_RC.view(len(some_rC), count, -1).double()
        # Contexts of zeros are alike, however many tokens they ignore: they get one direction.
        is_zero_rM1 = (after_rMC == 0).all(dim=-1, keepdim=True)
        unit_rMC = F.normalize(torch.cat([after_rMC, is_zero_rM1], dim=-1), dim=-1, eps=1e-150)
        # Every pair is counted twice, and each token with itself: cosine 1, distance 0.
        cosines_rMM = (unit_rMC @ unit_rMC.mT).cpu()
        by_context.append((cosines_rMM.sum(dim=(1, 2)) - count) / (count * (count - 1)))
        by_token += (cosines_rMM.sum(dim=2) - 1).sum(dim=0)
        squares += float(cosines_rMM.square().sum()) - len(some_rC) * count
        # The product form of the distance would turn equal contexts into rounding noise.
        mode = "donot_use_mm_for_euclid_dist"
        distances += float(torch.cdist(after_rMC, after_rMC, compute_mode=mode).sum())
    ordered_pairs = len(contexts_RC) * count * (count - 1)
    of_context_R = torch.cat(by_context)
    of_token_M = by_token / (len(contexts_RC) * (count - 1))
    # Every token is in two of the M places of a pair, which counts four times (Hoeffding 1948).
    variances = [
        factor * float(x.var()) / len(x)
        for x, factor in ((of_context_R, 1.0), (of_token_M, 4.0))
        if len(x) > 1
    ]
    return {
        "mean_cosine": (mean := float(of_context_R.mean())),
        "std_cosine": max(0.0, squares / ordered_pairs - mean**2) ** 0.5,
        "mean_l2": distances / ordered_pairs,
        "stderr": sum(variances) ** 0.5,
    }


def _asked(of_text: Tensor, every: Tensor | None, config: AnalysisConfig) -> Tensor:
    asked = torch.tensor(sorted(set(config.token_ids)), device=of_text.device)
    known = of_text if every is None else every
    if len(asked) < 2 or not bool(torch.isin(asked, known).all()):
        which = "of the text" if every is None else f"below {len(every):,}"
        raise InputError(f"analysis.token_ids: give two or more different ids {which}")
    return asked


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` different rows."""
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    return rows[chosen.to(rows.device)]


@torch.no_grad()
def contributions(
    recurrence: Recurrence, read: ProbeContexts, config: AnalysisConfig, *, seed: int
) -> dict[str, Any] | None:
    """Replace every token of a few passages of a split, one at a time.

    Returns:
        `by_lag`, mean over passages, and `stderr_by_lag`: lag 0 is the last token; `tokens` of the
        first passage and the part of each, `by_token`. None where there is one kind of token only.
    """
    types_U = torch.unique(read.tokens)
    if len(types_U) < 2:
        return None
    steps = min(config.contribution_tokens, config.dynamics_steps)
    _, tokens_PT, start_PC = read.evenly(config.dynamics_passages, steps)
    length = tokens_PT.shape[1]
    held = max(1, HELD_NUMBERS // (recurrence.context_dim * length))
    passages = min(len(tokens_PT), PASSAGES, held)
    substitutes = max(1, min(SUBSTITUTES, held // passages))
    tokens_PL = tokens_PT[:passages]
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
