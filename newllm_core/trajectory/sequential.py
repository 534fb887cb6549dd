"""Exact trajectories: each stream reads its tokens one after another.

Shapes: B streams, T tokens, K blocks, C context_dim, E embed_dim.
"""

import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel.sharding import is_divided, within
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.progress import Task

# A rollout reads so many tokens at a time, so that memory does not grow with T.
TOKENS_AT_ONCE = 16_384


def unroll(
    model: LanguageModel, tokens_BT: Tensor, start_BC: Tensor, *, final_only: bool = False
) -> list[Tensor]:
    """Read tokens, differentiably through time: contexts after every block, K tensors [B, T, C].

    Streams come from the contexts `start_BC`. `final_only` leaves those of the last block, a list
    of one.
    """
    return unroll_embedded(model, model.embed(tokens_BT.T), start_BC, final_only=final_only)


def unroll_embedded(
    model: LanguageModel, x_TBE: Tensor, start_BC: Tensor, *, final_only: bool = False
) -> list[Tensor]:
    """Read embedded tokens [T, B, E]; otherwise as `unroll`."""
    return within(model.blocks, _unroll, model, x_TBE, start_BC, final_only)


def _unroll(model: LanguageModel, x_TBE: Tensor, context: Tensor, final_only: bool) -> list[Tensor]:
    steps = []
    # Inside `within` divided blocks are whole: their hooks would gather them for every token.
    blocks = model.blocks.forward if is_divided(model.blocks) else model.blocks
    with model.narrow_products(len(context)), CELLS.blame(model.config.cell):
        for token in x_TBE.unbind(0):
            read = model.read(context=context, token=token, blocks=blocks)
            contexts = [of_block[-1] for of_block in read]
            context = contexts[-1]
            steps.append(contexts[-1:] if final_only else contexts)
    return [torch.stack(of_block, dim=1) for of_block in zip(*steps, strict=True)]


def read_to_end(model: LanguageModel, tokens_BT: Tensor, start_BC: Tensor) -> Tensor:
    """Read tokens without gradients: the final context after the last of them, if any [B, C]."""
    length = tokens_BT.shape[1]
    return rollout(model, tokens_BT, start_BC, warmup=length - 1)[:, 0] if length else start_BC


@torch.no_grad()
def rollout(
    model: LanguageModel,
    tokens_BT: Tensor,
    start_BC: Tensor,
    *,
    warmup: int = 0,
    task: Task | None = None,
) -> Tensor:
    """Read tokens without gradients: the final contexts [B, T - warmup, C].

    The contexts of the first `warmup` tokens are not returned. A `task` is told about all tokens.
    """
    num_streams, length = tokens_BT.shape
    contexts = start_BC.new_empty(num_streams, length - warmup, model.context_dim)
    context = start_BC
    span = max(1, TOKENS_AT_ONCE // max(1, num_streams))  # a process may have none
    if is_divided(model.blocks):  # and must gather as often as others, whose streams may be more
        span = max(1, length)
    for begin in range(0, length, span):
        read = unroll(model, tokens_BT[:, begin : begin + span], context, final_only=True)[0]
        context = read[:, -1]
        kept = read[:, max(0, warmup - begin) :]
        first = max(0, begin - warmup)
        contexts[:, first : first + kept.shape[1]] = kept
        if task is not None:
            task.advance(len(read) * read.shape[1])
    return contexts
