"""Token dependency: the same context, different tokens; how different are the results?

Shapes: R contexts, M tokens, C context_dim, E embed_dim.
"""

import torch
from torch import Tensor

from newllm_core.analysis.summary import cosine
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
        model that ignores its tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    types = torch.unique(tokens)
    if len(types) < 2:  # one type says nothing about tokens: compare it with the vocabulary
        types = torch.arange(model.vocab_size, device=tokens.device)
    contexts_RC = _sample(contexts_NC, NUM_CONTEXTS, generator)
    token_ME = model.embed(_sample(types, NUM_TOKENS, generator).to(contexts_NC.device))
    first, second = torch.triu_indices(len(token_ME), len(token_ME), offset=1)
    if not len(first):
        return {"mean_cosine": 1.0, "mean_l2": 0.0}
    cosines, distances = 0.0, 0.0
    for some_rC in contexts_RC.split(max(1, ROWS_AT_ONCE // len(token_ME))):
        for after_MC in _read_each(model, some_rC, token_ME):
            a, b = after_MC[first].double(), after_MC[second].double()
            cosines += float(cosine(a, b).mean())
            distances += float((a - b).norm(dim=1).mean())
    return {
        "mean_cosine": cosines / len(contexts_RC),
        "mean_l2": distances / len(contexts_RC),
    }


def _read_each(model: LanguageModel, contexts_RC: Tensor, token_ME: Tensor) -> Tensor:
    """Every context after every token [R, M, C]."""
    rows, columns = len(contexts_RC), len(token_ME)
    after = model.step(
        context=contexts_RC.repeat_interleave(columns, dim=0), token=token_ME.repeat(rows, 1)
    )[-1]
    return after.view(rows, columns, -1)


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` different rows."""
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    return rows[chosen.to(rows.device)]
