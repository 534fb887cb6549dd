"""In which order a window is read, and where the incoming context of a token comes from.

An engine yields batches; the loop computes the loss of a batch, makes a step, and stores the new
contexts in the window before it asks for the next batch.

Shapes: N tokens of a batch, B streams, n steps of a chunk, C context_dim.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from newllm_core.config import Phase1Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.runtime.device import to_device
from newllm_core.training.phase1.windows import Window
from newllm_core.trajectory.sequential import read_to_end, rollout

# Rows of an exact reading at a time: enough for large matrix products.
EXACT_ROWS = 512
# Tokens that a stream of it reads to find its start.
EXACT_WARMUP = 64


class Batch(NamedTuple):
    """Tokens to read at once, by all processes together.

    Attributes:
        positions_N: places in the window.
        incoming_NC: the contexts before those that this process reads [n, C].
        rows_per_rank: how many of the positions each process reads, in order.
    """

    positions_N: Tensor
    incoming_NC: Tensor
    rows_per_rank: list[int]

    @property
    def own(self) -> slice:
        """Return which of the positions this process reads."""
        return collectives.own(self.rows_per_rank)


def incoming(previous_TC: Tensor, start_C: Tensor, positions: Tensor) -> Tensor:
    """Return c_{t-1} of the reading before [N, C], for the tokens at `positions` [N]."""
    # `[]` would take several times as long on a processor.
    contexts = previous_TC.index_select(0, (positions - 1).clamp(min=0))
    return torch.where((positions == 0)[:, None], start_C, contexts)


def batches(
    model: LanguageModel,
    window: Window,
    config: Phase1Config,
    generator: torch.Generator,
    *,
    exact: bool = False,
    neighbours: bool = False,
    skip: int = 0,
) -> Iterator[Batch]:
    """Return the batches of one reading of `window`, in the order of the configured engine.

    With `exact` any engine reads in lock-step at fixed weights, without stale contexts. With
    `neighbours` rows of a batch follow each other in the text. The first `skip` batches are left
    out: their contexts are in the window already.
    """
    if exact:
        warmup = max(EXACT_WARMUP, model.config.memory_span)
        # None is shorter than what is read before it, which would begin before the window.
        shortest = max(config.exact_stream_tokens, warmup)
        num_streams = max(1, min(EXACT_ROWS, len(window) // shortest))
        shape = (num_streams, max(1, EXACT_ROWS // num_streams))
        return _streams(model, window, *shape, skip=skip, warmup=warmup)
    if config.engine == "parallel":
        return _parallel(window, config, generator, neighbours=neighbours, skip=skip)
    shape = (config.num_streams, config.chunk_steps) if config.engine == "streams" else (1, 1)
    return _streams(model, window, *shape, skip=skip)


def _parallel(
    window: Window,
    config: Phase1Config,
    generator: torch.Generator,
    *,
    neighbours: bool,
    skip: int,
) -> Iterator[Batch]:
    """Yield shuffled positions, incoming contexts from the reading before (Jacobi sweeps).

    After k sweeps at fixed weights the first k contexts equal the sequential ones exactly; the
    others are off by what the recurrence still remembers after k tokens (Gonzalez et al., NeurIPS
    2025). A window that `refreshes` its contexts has those of this reading where it has been
    already. Shuffling makes a batch representative, which statistics of regularizers need:
    neighbours in a text resemble each other. Where a regularizer compares `neighbours`, whole
    batches of them are shuffled.
    """
    batch_tokens = min(
        config.batch_tokens, max(config.min_batch_tokens, len(window) // config.steps_per_window)
    )
    num_batches = max(1, round(len(window) / batch_tokens))
    if neighbours:
        whole = torch.arange(len(window), device=window.tokens_T.device).tensor_split(num_batches)
        parts = [whole[n] for n in torch.randperm(num_batches, generator=generator).tolist()]
    else:
        order = torch.randperm(len(window), generator=generator)
        parts = list(to_device(order, window.tokens_T.device).tensor_split(num_batches))
    for positions_N in parts[skip:]:
        rows = collectives.rows_per_rank(len(positions_N))
        own_n = positions_N[collectives.own(rows)]
        yield Batch(positions_N, incoming(window.previous_TC, window.begin_C, own_n), rows)


def _streams(
    model: LanguageModel,
    window: Window,
    num_streams: int,
    chunk_steps: int,
    *,
    skip: int,
    warmup: int | None = None,
) -> Iterator[Batch]:
    """Yield consecutive streams in lock-step, incoming contexts from this very reading.

    The first stream begins where the reading begins; the others begin at the context before them
    in the reading before, or read `warmup` tokens to find it. A chunk is rolled out first without
    gradients, at the weights its step starts from, so that the loss of the whole chunk is one large
    batch. Streams of a window that does not divide evenly differ in length by one: the longer ones
    come first and take one more step at the end.
    """
    num_streams = min(num_streams, len(window))
    length, longer = divmod(len(window), num_streams)
    device = window.tokens_T.device
    streams = torch.arange(num_streams, device=device)
    begins_B = streams * length + streams.clamp(max=longer)
    if warmup is not None:
        context_BC = _starts(model, window, begins_B, warmup)
    else:
        context_BC = incoming(window.previous_TC, window.begin_C, begins_B)
    steps = [
        (first, min(chunk_steps, length - first), num_streams)
        for first in range(0, length, chunk_steps)
    ]
    if longer:
        steps.append((length, 1, longer))
    for first, count, active in steps[skip:]:
        offsets = torch.arange(first, first + count, device=device)
        positions_Bn = begins_B[:active, None] + offsets
        if first > 0:
            context_BC = window.current_TC[begins_B[:active] + first - 1]
        rows = collectives.rows_per_rank(active)
        own = collectives.own(rows)
        incoming_BnC = context_BC[own, None]
        if count > 1:
            rolled = rollout(model, window.tokens_T[positions_Bn[own, :-1]], context_BC[own])
            incoming_BnC = torch.cat([incoming_BnC, rolled], dim=1)
        yield Batch(positions_Bn.flatten(), incoming_BnC.flatten(0, 1), [count * r for r in rows])


def _starts(model: LanguageModel, window: Window, begins_B: Tensor, warmup: int) -> Tensor:
    """Read the tokens before each stream: the contexts in which streams begin [B, C]."""
    if window.is_twin:  # a second reading is there to begin elsewhere
        return window.first_C.expand(len(begins_B), -1)
    first_1C = window.begin_C[None]
    later = begins_B[1:, None] + torch.arange(-warmup, 0, device=begins_B.device)
    if not len(later):
        return first_1C
    first_BC = window.first_C.expand(len(later), -1)
    return torch.cat([first_1C, read_to_end(model, window.tokens_T[later], first_BC)])
