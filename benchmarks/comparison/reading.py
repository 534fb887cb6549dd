"""How peers read a text: windows to learn from, and the whole of it to be judged on.

Shapes: B streams, T tokens of a window, N rows (tokens), E width.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.comparison import precision
from benchmarks.peers.base import Peer, State
from newllm_core.data.prepared import TokenSplit
from newllm_core.evaluation.splits import LOGITS_AT_ONCE
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.trajectory.text import NUM_STREAMS, ROWS_AT_ONCE, WARMUP_TOKENS, inputs_at


def read(peer: Peer, inputs_BT: np.ndarray, state: State, way: str) -> tuple[Tensor, State]:
    """Vectors [B, T, E] for the head, and the state after the window, both float32."""
    device = peer.embedding.weight.device
    with precision.of_body(way, device):
        y_BTE, state = peer(torch.from_numpy(inputs_BT).to(device), state)
    return y_BTE.float(), [part.detach().float() for part in state]


def bits_per_byte(
    peer: Peer,
    text: TokenSplit,
    *,
    end_id: int,
    way: str,
    context: int,
    num_streams: int = NUM_STREAMS,
    warmup: int = WARMUP_TOKENS,
    progress: Progress | None = None,
) -> float:
    """Predict every token of `text` once.

    Args:
        peer: in training mode or not; dropout is off.
        text: what to predict.
        end_id: what comes before the first token.
        way: of matrix products.
        context: longest window of a peer that carries no state.
        num_streams: of one that does, as in `newllm_core.trajectory.text`.
        warmup: tokens that streams after the first read beforehand.
        progress: is told how far it is.
    """
    tokens = text.tokens
    if peer.carries_state:
        readings = _streams(peer, tokens, end_id, way, num_streams, warmup)
    else:
        readings = _windows(peer, tokens, end_id, way, context)
    nats, count = 0.0, 0
    training = peer.training
    peer.eval()
    with torch.no_grad(), (progress or Silent()).task("evaluating", len(tokens), "tokens") as task:
        for y_NE, positions_N in readings:
            targets_N = torch.from_numpy(np.asarray(tokens[positions_N], np.int64)).to(y_NE.device)
            last_N = torch.from_numpy(inputs_at(tokens, positions_N, end_id)).to(y_NE.device)
            nats += _nats(peer, y_NE, last_N, targets_N)
            count += len(positions_N)
            task.advance(len(positions_N))
    peer.train(training)
    assert count == len(tokens), "every token is predicted once"
    assert text.num_bytes, "bytes are known of prepared text"
    return nats / math.log(2) / text.num_bytes


def _nats(peer: Peer, y_NE: Tensor, last_N: Tensor, targets_N: Tensor) -> float:
    rows = max(1, LOGITS_AT_ONCE // peer.head.out_features)
    total = 0.0
    parts = (y_NE.split(rows), last_N.split(rows), targets_N.split(rows))
    for part_NE, last, targets in zip(*parts, strict=True):
        mean = peer.nats(plain_cross_entropy, part_NE, last, targets, counted=False)
        total += float(mean) * len(targets)
    return total


Readings = Iterator[tuple[Tensor, np.ndarray]]


def _streams(
    peer: Peer, tokens: np.ndarray, end_id: int, way: str, num_streams: int, warmup: int
) -> Readings:
    """Contiguous streams in lock-step, the state carried; the layout of `contexts_of_text`."""
    length = len(tokens)
    count = max(1, min(num_streams, length // max(1, 2 * warmup)))
    bounds = np.arange(count + 1, dtype=np.int64) * length // count
    starts_B1, ends_B1 = bounds[:-1, None], bounds[1:, None]
    state = peer.start(count)
    chunk = max(1, ROWS_AT_ONCE // count)
    if count > 1 and warmup:
        steps = np.arange(-warmup, 0)
        _, state = read(peer, inputs_at(tokens, starts_B1 + steps, end_id), state, way)
        # Nothing comes before the first stream.
        for part, zero in zip(state, peer.start(1), strict=True):
            part[0] = zero[0]
    for begin in range(0, int((ends_B1 - starts_B1).max()), chunk):
        positions_BT = starts_B1 + np.arange(begin, begin + chunk)
        exists_BT = positions_BT < ends_B1
        # Streams differ by one token: a shorter one reads one of the next stream's at its end.
        kept = int(exists_BT.sum(1).max())
        positions_BT, exists_BT = positions_BT[:, :kept], exists_BT[:, :kept]
        inputs_BT = inputs_at(tokens, np.minimum(positions_BT, length - 1), end_id)
        y_BTE, state = read(peer, inputs_BT, state, way)
        yield y_BTE[torch.from_numpy(exists_BT)], positions_BT[exists_BT]


def _windows(peer: Peer, tokens: np.ndarray, end_id: int, way: str, context: int) -> Readings:
    """Windows that overlap by half: every token but the first ones has half a window before it."""
    length, stride = len(tokens), max(1, context // 2)
    starts = np.arange(0, max(1, length - (context - stride)), stride)
    for chosen in np.array_split(starts, -(-len(starts) * context // ROWS_AT_ONCE)):
        positions_BT = chosen[:, None] + np.arange(context)
        inputs_BT = inputs_at(tokens, np.minimum(positions_BT, length - 1), end_id)
        y_BTE, _ = read(peer, inputs_BT, [], way)
        fresh_BT = (np.arange(context) >= context - stride) | (chosen[:, None] == 0)
        wanted_BT = fresh_BT & (positions_BT < length)
        yield y_BTE[torch.from_numpy(wanted_BT)], positions_BT[wanted_BT]
