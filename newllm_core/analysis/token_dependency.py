"""Token dependency: the same context, different tokens; how different are the results?

Shapes: R contexts, M tokens, C context_dim.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.config import AnalysisConfig
from newllm_core.errors import InputError

ROWS_AT_ONCE = 4096
# And so many numbers of contexts.
ELEMENTS_AT_ONCE = 2**24


@torch.no_grad()
def token_dependency(
    recurrence: Recurrence,
    contexts_NC: Tensor,
    tokens: Tensor,
    config: AnalysisConfig,
    *,
    seed: int,
) -> dict[str, float]:
    """Let sampled contexts read sampled tokens, and compare what becomes of each context.

    Tokens are sampled from the types in `tokens`, of any shape.

    Returns:
        `mean_cosine` and `mean_l2` over contexts and pairs of different tokens: 1 and 0 for a
        model that ignores its tokens; `std_cosine`, the standard deviation over contexts and
        pairs; `stderr` of the mean cosine, from both samples.

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
    rows = min(ROWS_AT_ONCE, ELEMENTS_AT_ONCE // recurrence.context_dim)
    for some_rC in contexts_RC.split(max(1, rows // count)):
        each_RC = some_rC.repeat_interleave(count, dim=0)
        after_RC = recurrence.read(each_RC, token_M.repeat(len(some_rC)))
        after_rMC = after_RC.view(len(some_rC), count, -1).double()
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
