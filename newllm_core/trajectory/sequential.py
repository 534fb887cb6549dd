"""Exact trajectories: each stream reads its tokens one after another.

Shapes: B streams, T tokens, K blocks, C context_dim, E embed_dim.
"""

import itertools

import torch
from torch import Tensor

from newllm_core.model.fused_unroll import fused_layers, unroll_fused
from newllm_core.model.language_model import LanguageModel
from newllm_core.model.mogrifier import MogrifierLayer
from newllm_core.model.mogrifier_unroll import unroll_mogrifier
from newllm_core.parallel.sharding import within

# A rollout reads so many tokens at a time, so that memory does not grow with T.
TOKENS_AT_ONCE = 16_384


def unroll(
    model: LanguageModel, tokens_BT: Tensor, start_BC: Tensor, *, final_only: bool = False
) -> list[Tensor]:
    """Contexts after every block: K tensors [B, T, C]. Differentiable through time.

    Args:
        model: the recurrence.
        tokens_BT: token ids.
        start_BC: the contexts the streams come from.
        final_only: return those of the last block only, a list of one.
    """
    return unroll_embedded(model, model.embed(tokens_BT.T), start_BC, final_only=final_only)


def unroll_embedded(
    model: LanguageModel, x_TBE: Tensor, start_BC: Tensor, *, final_only: bool = False
) -> list[Tensor]:
    """As `unroll`, of embedded tokens [T, B, E]."""
    layers = model.layers()
    first, *others = layers
    if isinstance(first, MogrifierLayer) and not others and not first.twice_differentiable:
        dtype = model.compute_dtype or start_BC.dtype
        contexts_TBC = within(model.blocks, unroll_mogrifier, first, x_TBE, start_BC, dtype)
        return [contexts_TBC.transpose(0, 1)]
    if fused := fused_layers(layers):
        ends = list(itertools.accumulate(model.config.layer_structure))
        outputs = [end - 1 for end in (ends[-1:] if final_only else ends)]
        dtype = model.compute_dtype or start_BC.dtype
        by_block = within(model.blocks, unroll_fused, fused, outputs, x_TBE, start_BC, dtype)
        return [contexts_TBC.transpose(0, 1) for contexts_TBC in by_block]
    return within(model.blocks, _unroll, model, x_TBE, start_BC, final_only)


def _unroll(model: LanguageModel, x_TBE: Tensor, context: Tensor, final_only: bool) -> list[Tensor]:
    steps = []
    with model.fixed_weights():
        for token in x_TBE.unbind(0):
            contexts = model.step(context=context, token=token)
            context = contexts[-1]
            steps.append(contexts[-1:] if final_only else contexts)
    return [torch.stack(of_block, dim=1) for of_block in zip(*steps, strict=True)]


@torch.no_grad()
def rollout(
    model: LanguageModel, tokens_BT: Tensor, start_BC: Tensor, *, warmup: int = 0
) -> Tensor:
    """Final contexts [B, T - warmup, C] without gradients.

    Args:
        model: the recurrence.
        tokens_BT: token ids.
        start_BC: the contexts the streams come from.
        warmup: so many first tokens are read but not returned.
    """
    num_streams, length = tokens_BT.shape
    contexts = start_BC.new_empty(num_streams, length - warmup, model.context_dim)
    context = start_BC
    span = max(1, TOKENS_AT_ONCE // num_streams)
    for begin in range(0, length, span):
        read = unroll(model, tokens_BT[:, begin : begin + span], context, final_only=True)[0]
        context = read[:, -1]
        kept = read[:, max(0, warmup - begin) :]
        first = max(0, begin - warmup)
        contexts[:, first : first + kept.shape[1]] = kept
    return contexts
