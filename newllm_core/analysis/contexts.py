"""Contexts of probe passages: what every section looks at.

Shapes: P passages, T tokens that count, S = T or T + 1 contexts in a row, C context_dim, K numbers
kept of a context (C, but of very long ones).
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.errors import DivergedError, InputError
from newllm_core.runtime.progress import Task

# Progress is told after so many tokens of every passage.
TOKENS_AT_ONCE = 64


@dataclass(frozen=True)
class ProbeContexts:
    """What a recurrence made of the passages of one split.

    Attributes:
        passages: every token that was read [P, warmup + T].
        tokens: ids of the tokens that count [P, T].
        trajectory: contexts in a row [P, S, K]; with a warm-up the first is that before the first
            token that counts (S = T + 1).
        ends: the first and the last contexts of the trajectory, all of them [2, P, C].
        is_projected: whether K numbers stand for C.
    """

    passages: Tensor
    tokens: Tensor
    trajectory: Tensor
    ends: Tensor
    is_projected: bool = False

    @property
    def contexts(self) -> Tensor:
        """Return what is kept of the context after every token that counts [P * T, K]."""
        counted = self.trajectory[:, -self.tokens.shape[1] :]
        return counted.reshape(-1, self.trajectory.shape[2])

    @property
    def states(self) -> Tensor:
        """Return contexts to go on from [N, C]: all there are, or those at the ends."""
        return self.ends.flatten(0, 1) if self.is_projected else self.contexts


def equal_probes(probes: Mapping[str, Tensor], warmup: int) -> dict[str, Tensor]:
    """Return passages of every split, cut to the same number and length, of two tokens at least."""
    passages = min(len(tokens) for tokens in probes.values())
    length = min(tokens.shape[1] for tokens in probes.values())
    if length - warmup < 2:
        raise InputError(
            f"the checkpoint's probes hold {passages} passages of {length} tokens with a warm-up "
            f"of {warmup}: too few to analyse; train on a longer text"
        )
    return {split: tokens[:passages, :length] for split, tokens in probes.items()}


def read_finite(
    recurrence: Recurrence, probes: Mapping[str, Tensor], warmup: int, *, task: Task | None = None
) -> dict[str, ProbeContexts]:
    """Read as `read_splits` does, or raise `DivergedError`: a context is not finite."""
    read = read_splits(recurrence, probes, warmup, task=task)
    splits = exploded(read)
    if splits:
        raise DivergedError(
            f"contexts of the {' and '.join(splits)} passages are not finite: the recurrence "
            "explodes (train with a smaller model.init_std, or with cell.layernorm_mix near 1 "
            "where the cell has that)"
        )
    return read


def read_splits(
    recurrence: Recurrence, probes: Mapping[str, Tensor], warmup: int, *, task: Task | None = None
) -> dict[str, ProbeContexts]:
    """Read the passages [P, warmup + T] of all splits side by side, which is faster.

    Contexts may turn out not to be finite: see `exploded`.
    """
    passages = torch.cat(list(probes.values())).to(recurrence.start(1).device)
    first = max(0, warmup - 1)
    context = recurrence.starts(passages)
    # The context before the first token that counts is kept whole: everything goes on from it.
    limits = [*range(0, first, TOKENS_AT_ONCE), first]
    limits += [*range(first + 1, passages.shape[1], TOKENS_AT_ONCE), passages.shape[1]]
    found, before = [], context
    for begin, end in itertools.pairwise(limits):
        tokens = passages[:, begin:end]
        kept, context = recurrence.rollout(tokens, context)
        if begin == first:
            before = context
        if begin >= first:
            found.append(kept)
        if task is not None:
            task.advance(tokens.numel())
    counts = [len(tokens) for tokens in probes.values()]
    trajectory, ends = torch.cat(found, dim=1), torch.stack([before, context])
    parts = zip(
        probes, passages.split(counts), trajectory.split(counts), ends.split(counts, 1), strict=True
    )
    return {
        split: ProbeContexts(tokens, tokens[:, warmup:], rows, of_ends, recurrence.is_projected)
        for split, tokens, rows, of_ends in parts
    }


def exploded(read: Mapping[str, ProbeContexts]) -> list[str]:
    """Return the splits with a context that is not finite."""
    return [
        split
        for split, of_split in read.items()
        if not bool(torch.isfinite(of_split.trajectory).all())
    ]
