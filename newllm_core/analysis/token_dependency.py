"""Token dependency: the same context, different tokens; how different are the results?

Shapes: R contexts, M tokens, C context_dim, E embed_dim.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.config import AnalysisConfig
from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel

ROWS_AT_ONCE = 4096


@torch.no_grad()
def token_dependency(
    model: LanguageModel,
    contexts_NC: Tensor,
    tokens: Tensor,
    config: AnalysisConfig,
    *,
    seed: int,
) -> dict[str, float]:
    """Let sampled contexts read sampled tokens, and compare what becomes of each context.

    Args:
        model: the recurrence.
        contexts_NC: contexts to sample from.
        tokens: token ids whose types are sampled from, any shape.
        config: how many contexts and tokens, or which tokens.
        seed: of both samples.

    Returns:
        `mean_cosine` and `mean_l2` over contexts and pairs of different tokens: 1 and 0 for a
        model that ignores its tokens; `std_cosine`, the standard deviation over contexts and
        pairs; `stderr` of the mean cosine, from both samples.

    Raises:
        InputError: a token id that was asked for is not in the vocabulary.
    """
    generator = torch.Generator().manual_seed(seed)
    types = _types(tokens, model.vocab_size, config)
    if len(types) < 2:  # one type says nothing about tokens: compare it with the vocabulary
        types = torch.arange(model.vocab_size, device=tokens.device)
    contexts_RC = _sample(contexts_NC, config.dependency_contexts, generator)
    wanted = len(types) if config.token_ids else config.dependency_tokens
    token_ME = model.embed(_sample(types, wanted, generator).to(contexts_NC.device))
    count = len(token_ME)
    if count < 2:
        return {"mean_cosine": 1.0, "std_cosine": 0.0, "mean_l2": 0.0, "stderr": 0.0}
    by_context, by_token, distances = [], torch.zeros(count).double(), 0.0
    squares = 0.0
    for some_rC in contexts_RC.split(max(1, ROWS_AT_ONCE // count)):
        after_rMC = _read_each(model, some_rC, token_ME).double()
        unit_rMC = F.normalize(after_rMC, dim=-1)
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
    return {
        "mean_cosine": (mean := float(of_context_R.mean())),
        "std_cosine": max(0.0, squares / ordered_pairs - mean**2) ** 0.5,
        "mean_l2": distances / ordered_pairs,
        "stderr": _standard_error(of_context_R, of_token_M),
    }


def _types(tokens: Tensor, vocab_size: int, config: AnalysisConfig) -> Tensor:
    """Return the token ids to choose from: those asked for, or those of the text."""
    if not config.token_ids:
        return torch.unique(tokens)
    if max(config.token_ids) >= vocab_size or len(set(config.token_ids)) < 2:
        raise InputError(f"analysis.token_ids: give two or more different ids below {vocab_size:,}")
    return torch.tensor(sorted(set(config.token_ids)), device=tokens.device)


def _standard_error(of_context_R: Tensor, of_token_M: Tensor) -> float:
    """Of a mean over sampled contexts and pairs of sampled tokens.

    Every token is in two of the M places of a pair, which counts four times (Hoeffding 1948).
    """
    parts = [(of_context_R, 1.0), (of_token_M, 4.0)]
    squares = [factor * float(x.var()) / len(x) for x, factor in parts if len(x) > 1]
    return sum(squares) ** 0.5


def _read_each(model: LanguageModel, contexts_RC: Tensor, token_ME: Tensor) -> Tensor:
    """Return every context after every token [R, M, C]."""
    rows, columns = len(contexts_RC), len(token_ME)
    after = model.step(
        context=contexts_RC.repeat_interleave(columns, dim=0), token=token_ME.repeat(rows, 1)
    )[-1]
    return after.view(rows, columns, -1)


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` different rows."""
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    return rows[chosen.to(rows.device)]
