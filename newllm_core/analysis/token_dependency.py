"""Token dependency: the same context, different tokens; how different are the results?

Shapes: R contexts, M tokens, C context_dim, E embed_dim.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.model.language_model import LanguageModel

NUM_CONTEXTS = 64
NUM_TOKENS = 32
ROWS_AT_ONCE = 4096


@torch.no_grad()
def token_dependency(
    model: LanguageModel, contexts_NC: Tensor, tokens: Tensor, *, seed: int
) -> dict[str, float]:
    """Let sampled contexts read sampled tokens, and compare what becomes of each context.

    Args:
        model: the recurrence.
        contexts_NC: contexts to sample from.
        tokens: token ids whose types are sampled from, any shape.
        seed: of both samples.

    Returns:
        `mean_cosine` and `mean_l2` over contexts and pairs of different tokens: 1 and 0 for a
        model that ignores its tokens; `stderr` of the cosine, from both samples.
    """
    generator = torch.Generator().manual_seed(seed)
    types = torch.unique(tokens)
    if len(types) < 2:  # one type says nothing about tokens: compare it with the vocabulary
        types = torch.arange(model.vocab_size, device=tokens.device)
    contexts_RC = _sample(contexts_NC, NUM_CONTEXTS, generator)
    token_ME = model.embed(_sample(types, NUM_TOKENS, generator).to(contexts_NC.device))
    count = len(token_ME)
    if count < 2:
        return {"mean_cosine": 1.0, "mean_l2": 0.0, "stderr": 0.0}
    by_context, by_token, distances = [], torch.zeros(count).double(), 0.0
    for some_rC in contexts_RC.split(max(1, ROWS_AT_ONCE // count)):
        after_rMC = _read_each(model, some_rC, token_ME).double()
        unit_rMC = F.normalize(after_rMC, dim=-1)
        # Every pair is counted twice, and each token with itself: cosine 1, distance 0.
        cosines_rMM = (unit_rMC @ unit_rMC.mT).cpu()
        by_context.append((cosines_rMM.sum(dim=(1, 2)) - count) / (count * (count - 1)))
        by_token += (cosines_rMM.sum(dim=2) - 1).sum(dim=0)
        # The product form of the distance would turn equal contexts into rounding noise.
        mode = "donot_use_mm_for_euclid_dist"
        distances += float(torch.cdist(after_rMC, after_rMC, compute_mode=mode).sum())
    ordered_pairs = len(contexts_RC) * count * (count - 1)
    of_context_R = torch.cat(by_context)
    of_token_M = by_token / (len(contexts_RC) * (count - 1))
    return {
        "mean_cosine": float(of_context_R.mean()),
        "mean_l2": distances / ordered_pairs,
        "stderr": _standard_error(of_context_R, of_token_M),
    }


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
