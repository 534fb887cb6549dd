"""Phase 2 on frozen contexts: only heads learn, from contexts computed once.

Shapes: N rows (tokens), K heads, C context_dim.
"""

import itertools
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from newllm_core.checkpoint.run_state import State
from newllm_core.parallel import collectives
from newllm_core.runtime.device import to_device
from newllm_core.runtime.progress import Progress
from newllm_core.training.phase2.context_store import ContextStore
from newllm_core.training.phase2.source import Source, Terms
from newllm_core.trajectory.text import contexts_of_text

# Neighbouring rows that are read together; every pool of them is shuffled row by row.
SEGMENT_ROWS = 256
POOL_BYTES = 64 * 2**20


@dataclass(eq=False)
class FrozenContexts(Source):
    """Losses of one shuffled batch after another, from contexts in `store`.

    Attributes:
        num_steps: batches of an epoch.
        num_tokens: tokens of an epoch: all.
        order: the random state that this epoch's order is drawn from.
    """

    _: KW_ONLY
    store: ContextStore
    seed: int

    def __post_init__(self) -> None:
        self.shuffling = np.random.default_rng(self.seed)
        self.begin_epoch()
        self.num_tokens = len(self.tokens)
        self.num_steps = -(-self.num_tokens // self.config.batch_tokens)

    def fill(self, progress: Progress) -> None:
        """Fill `store` with what the heads read, computed as evaluation computes it."""
        with progress.task("computing contexts", self.num_tokens, "tokens") as task:
            for chunk in contexts_of_text(self.model, self.tokens, end_id=self.end_id):
                read_NKC = torch.stack(chunk.contexts[-self.model.num_heads :], dim=1)
                self.store.write(chunk.positions_N, read_NKC)
                task.advance(len(chunk.positions_N))

    def begin_epoch(self) -> None:
        """Begin another order."""
        self.order = self.shuffling.bit_generator.state

    def state(self) -> State:
        """Return the order of this epoch."""
        return State({}, {"order": self.order})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.order = state.values["order"]

    def losses(self, generator: torch.Generator, *, skip: int = 0) -> Iterator[Terms]:
        """Yield losses from batch `skip` on; a step is made with each before the next is made."""
        like = self.model.embedding.weight
        self.shuffling.bit_generator.state = self.order
        for rows_NKC, positions_N in itertools.islice(self.batches(), skip, None):
            rows = collectives.rows_per_rank(len(positions_N))
            own = collectives.own(rows)
            own_N = positions_N[own]
            contexts = rows_NKC[own].to(like.dtype).unbind(1)
            total, plain = self.cross_entropy(
                contexts, *self.tokens_at(own_N), own_N, generator=generator, rows=rows
            )
            yield Terms(total, plain, len(positions_N))

    def batches(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Yield every row once, shuffled: contexts [N, K, C] and places of what follows [N]."""
        size = self.config.batch_tokens
        left_NKC = torch.empty(0, *self.store.shape, device=self.store.device)
        left_N = np.empty(0, np.int64)
        for segments in self._pools():
            begins = (int(s) * SEGMENT_ROWS for s in segments)
            pieces = [np.arange(b, min(b + SEGMENT_ROWS, self.num_tokens)) for b in begins]
            read = (self.store.read(int(piece_N[0]), len(piece_N)) for piece_N in pieces)
            pool_NKC, pool_N = torch.cat([left_NKC, *read]), np.concatenate([left_N, *pieces])
            order_N = self.shuffling.permutation(len(pool_N))
            places_N = to_device(torch.from_numpy(order_N), self.store.device)
            full = len(order_N) // size * size
            for begin in range(0, full, size):
                here = slice(begin, begin + size)
                yield pool_NKC.index_select(0, places_N[here]), pool_N[order_N[here]]
            # What does not fill a batch is shuffled into the next pool.
            left_NKC, left_N = pool_NKC.index_select(0, places_N[full:]), pool_N[order_N[full:]]
        if len(left_N):
            yield left_NKC, left_N

    def _pools(self) -> list[np.ndarray]:
        rows = max(4 * self.config.batch_tokens, POOL_BYTES // self.store.row_bytes)
        segments = self.shuffling.permutation(-(-self.num_tokens // SEGMENT_ROWS))
        per_pool = max(1, rows // SEGMENT_ROWS)
        return np.split(segments, range(per_pool, len(segments), per_pool))
