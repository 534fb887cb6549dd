"""Contexts of a checkpoint's probe passages: what every section looks at.

Shapes: P passages, T tokens that count, S = T or T + 1 contexts in a row, C context_dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.errors import DivergedError, InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Task
from newllm_core.trajectory.sequential import rollout

# Progress is told after so many tokens of every passage.
TOKENS_AT_ONCE = 64


@dataclass(frozen=True)
class ProbeContexts:
    """What a model made of the passages of one split.

    Attributes:
        passages: every token that was read [P, warmup + T].
        tokens: ids of the tokens that count [P, T].
        trajectory: contexts in a row [P, S, C]; with a warm-up the first is that before the first
            token that counts (S = T + 1).
    """

    passages: Tensor
    tokens: Tensor
    trajectory: Tensor

    @property
    def contexts(self) -> Tensor:
        """Return the context after every token that counts [P * T, C]."""
        counted = self.trajectory[:, -self.tokens.shape[1] :]
        return counted.reshape(-1, self.trajectory.shape[2])


def equal_probes(probes: Mapping[str, Tensor], warmup: int) -> dict[str, Tensor]:
    """Return passages of every split, cut to the same number and length.

    Raises:
        InputError: fewer than two tokens of a passage are left after the warm-up.
    """
    passages = min(len(tokens) for tokens in probes.values())
    length = min(tokens.shape[1] for tokens in probes.values())
    if length - warmup < 2:
        raise InputError(
            f"the checkpoint's probes hold {passages} passages of {length} tokens with a warm-up "
            f"of {warmup}: too few to analyse; train on a longer text"
        )
    return {split: tokens[:passages, :length] for split, tokens in probes.items()}


def read_finite(
    model: LanguageModel, probes: Mapping[str, Tensor], warmup: int, *, task: Task | None = None
) -> dict[str, ProbeContexts]:
    """Read as `read_splits` does.

    Raises:
        DivergedError: a context is not finite.
    """
    read = read_splits(model, probes, warmup, task=task)
    refuse_exploded(read)
    return read


def read_splits(
    model: LanguageModel, probes: Mapping[str, Tensor], warmup: int, *, task: Task | None = None
) -> dict[str, ProbeContexts]:
    """Read the passages [P, warmup + T] of all splits side by side, which is faster.

    Contexts may turn out not to be finite: see `exploded`.
    """
    device = model.embedding.weight.device
    passages = torch.cat(list(probes.values())).to(device)
    before = min(warmup, 1)
    context = model.start(len(passages))
    kept = context.new_empty(len(passages), passages.shape[1] - warmup + before, model.context_dim)
    skipped = warmup - before
    for begin in range(0, passages.shape[1], TOKENS_AT_ONCE):
        tokens = passages[:, begin : begin + TOKENS_AT_ONCE]
        contexts = rollout(model, tokens, context)
        context = contexts[:, -1]
        first = max(0, skipped - begin)
        if first < tokens.shape[1]:
            at = begin + first - skipped
            kept[:, at : at + tokens.shape[1] - first] = contexts[:, first:]
        if task is not None:
            task.advance(tokens.numel())
    counts = [len(tokens) for tokens in probes.values()]
    parts = zip(probes, passages.split(counts), kept.split(counts), strict=True)
    return {
        split: ProbeContexts(passages=tokens, tokens=tokens[:, warmup:], trajectory=trajectory)
        for split, tokens, trajectory in parts
    }


def exploded(read: Mapping[str, ProbeContexts]) -> list[str]:
    """Return the splits with a context that is not finite."""
    return [
        split
        for split, of_split in read.items()
        if not bool(torch.isfinite(of_split.trajectory).all())
    ]


def refuse_exploded(read: Mapping[str, ProbeContexts]) -> None:
    """Raise `DivergedError` if a context is not finite."""
    splits = exploded(read)
    if splits:
        raise DivergedError(
            f"contexts of the {' and '.join(splits)} passages are not finite: the recurrence "
            "explodes (train with a smaller model.init_std, or with cell.layernorm_mix near 1 "
            "where the cell has that)"
        )
