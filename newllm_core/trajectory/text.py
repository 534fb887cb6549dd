"""Contexts over a whole text of any length, in constant memory: what evaluation is made of.

The text is divided into contiguous streams that are read in lock-step. Every stream but the first
warms up on the tokens before its own, so that its contexts are close to those of one stream that
reads everything; with `num_streams=1` they are exactly those.

Shapes: B streams, T tokens of a chunk, N rows (the tokens of a chunk that exist), C context_dim.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel
from newllm_core.trajectory.sequential import read_to_end, unroll

NUM_STREAMS = 256
WARMUP_TOKENS = 256
ROWS_AT_ONCE = 4096
# Not in the generator itself: a `no_grad` around a `yield` would leak into whoever iterates.
_unroll = torch.no_grad()(unroll)


@dataclass(frozen=True)
class ContextChunk:
    """Some tokens of a text, and the contexts in which they are predicted.

    Attributes:
        positions_N: their places in the text.
        inputs_N: ids of the tokens before them.
        targets_N: their ids.
        contexts: [N, C] after every block, from everything before them.
    """

    positions_N: np.ndarray
    inputs_N: Tensor
    targets_N: Tensor
    contexts: list[Tensor]


def inputs_at(tokens: np.ndarray, positions: np.ndarray, end_id: int) -> np.ndarray:
    """Return what is read before the token at each position is predicted: the one before it.

    The first token of a text follows `end_id`, as every first token of a later document does.
    """
    before = np.asarray(tokens[np.maximum(positions - 1, 0)], np.int64)
    return np.where(positions <= 0, end_id, before)


def contexts_of_text(
    model: LanguageModel,
    tokens: np.ndarray,
    *,
    end_id: int,
    num_streams: int = NUM_STREAMS,
    warmup: int | None = None,
    start_1C: Tensor | None = None,
) -> Generator[ContextChunk, None, Tensor]:
    """Yield every token of `tokens` [T] exactly once, a chunk at a time, without gradients.

    There are at most `num_streams`, fewer where they would be mostly warm-up, of `warmup` tokens
    (256, or more where the memory of the model is longer).
    Before the first token `end_id`, the one between documents, is read, from `start_1C` or zero.

    Returns:
        The context [1, C] in which the last token was predicted: it goes on from there.
    """
    length = len(tokens)
    warmup = max(WARMUP_TOKENS, model.config.memory_span) if warmup is None else warmup
    count = max(1, min(num_streams, length // max(1, 2 * warmup)))
    bounds = np.arange(count + 1, dtype=np.int64) * length // count
    starts_B1, ends_B1 = bounds[:-1, None], bounds[1:, None]
    device = model.device
    context_BC = model.start(count)
    chunk = max(1, ROWS_AT_ONCE // count)

    if count > 1:
        before_BT = inputs_at(tokens, starts_B1 + np.arange(-warmup, 0), end_id)
        context_BC = read_to_end(model, torch.from_numpy(before_BT).to(device), context_BC)
    # The first stream does not come from a warm-up.
    context_BC[:1] = model.start(1) if start_1C is None else start_1C

    longest = length - int(bounds[-2])  # of the last stream; others have one token less at most
    for begin in range(0, longest, chunk):
        positions_BT = starts_B1 + np.arange(begin, min(begin + chunk, longest))
        exists_BT = positions_BT < ends_B1
        inputs_BT = inputs_at(tokens, positions_BT, end_id)
        contexts = _unroll(model, torch.from_numpy(inputs_BT).to(device), context_BC)
        context_BC = contexts[-1][:, -1]
        positions_N = positions_BT[exists_BT]
        chosen_N = torch.from_numpy(np.flatnonzero(exists_BT)).to(device)
        yield ContextChunk(
            positions_N,
            torch.from_numpy(inputs_BT[exists_BT]).to(device),
            torch.from_numpy(np.asarray(tokens[positions_N], np.int64)).to(device),
            [of_block.flatten(0, 1).index_select(0, chosen_N) for of_block in contexts],
        )
    # No stream is longer than the last one, so it is the one that read nothing twice.
    return context_BC[-1:]


def contexts_of_segments(
    model: LanguageModel, segments: Iterable[np.ndarray], *, end_id: int
) -> Iterator[ContextChunk]:
    """Read a text that comes in segments, each going on where the one before ended.

    No segment may be empty; longer ones take less time. `end_id` is before the first.
    """
    context_1C = None
    for tokens in segments:
        context_1C = yield from contexts_of_text(model, tokens, end_id=end_id, start_1C=context_1C)
        end_id = int(tokens[-1])
