"""Contexts of probe passages: what every section looks at. Of very long ones sketches are kept.

In a sketch every number gets a random sign and is added to one of K places, its own place modulo K
(a count sketch: Charikar, Chen & Farach-Colton 2002). A squared length has the relative error
`sqrt(2 / K)`. K is a prime, so that numbers which belong together are spread evenly.

Shapes: N rows, P passages, T tokens that count, S = T or T + 1 contexts in a row, C context_dim,
K numbers kept of a context (C, but of very long ones).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.rank import effective_rank, effective_rank_ceiling
from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.sections import distribution
from newllm_core.errors import DivergedError, InputError

# Prime.
PLACES = 4093
SHOWN_DIMENSIONS = 4096
# Probes are fitted to a quarter of the places, which the tokens of a text can still determine.
FOLDS_FOR_PROBES = 4
# Numbers of contexts that are held at once beside those of the probes.
HELD_NUMBERS = 2**24


@dataclass(frozen=True)
class ProbeContexts:
    """What a recurrence made of the passages of one split."""

    passages: Tensor  # every token that was read [P, warmup + T]
    tokens: Tensor  # those that count [P, T]
    # In a row [P, S, K]; with a warm-up from before the first token that counts on (S = T + 1).
    trajectory: Tensor
    ends: Tensor  # the first and the last contexts of the trajectory, all of them [2, P, C]
    is_projected: bool = False  # whether K numbers stand for C

    @property
    def contexts(self) -> Tensor:
        """Return what is kept of the context after every token that counts [P * T, K]."""
        counted = self.trajectory[:, -self.tokens.shape[1] :]
        return counted.reshape(-1, self.trajectory.shape[2])

    @property
    def states(self) -> Tensor:
        """Return contexts to go on from [N, C]: all there are, or those at the ends."""
        return self.ends.flatten(0, 1) if self.is_projected else self.contexts

    def evenly(self, passages: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return trajectories [P, S, K] of evenly spaced passages, tokens [P, T] and starts [P, C].

        There are at most so many `passages` and `steps` T = S - 1.
        """
        count, steps = min(len(self.tokens), passages), min(self.trajectory.shape[1] - 1, steps)
        chosen = torch.linspace(0, len(self.tokens) - 1, count).round().long()
        tokens = self.tokens[:, self.tokens.shape[1] - self.trajectory.shape[1] + 1 :]
        return self.trajectory[chosen, : steps + 1], tokens[chosen, :steps], self.ends[0, chosen]


def of_last_token(recurrence: Recurrence, read: ProbeContexts) -> ProbeContexts:
    """Return the contexts of a reader that begins anew before every token that counts."""
    types_U, place_PT = torch.unique(read.tokens, return_inverse=True)
    at_once = max(1, HELD_NUMBERS // recurrence.context_dim)
    found = [
        recurrence.kept(recurrence.read(recurrence.start(len(some_u)), some_u))
        for some_u in types_U.split(at_once)
    ]
    return replace(read, trajectory=torch.cat(found)[place_PT])


def equal_probes(probes: Mapping[str, Tensor], warmup: int) -> dict[str, Tensor]:
    """Return passages of every split, cut to the same number and length, or raise `InputError`."""
    passages = min(len(tokens) for tokens in probes.values())
    length = min(tokens.shape[1] for tokens in probes.values())
    if length - warmup < 2:
        raise InputError(
            f"the text gives {passages} passages of {length} tokens with a warm-up of {warmup}: "
            "too few to analyse, a longer text is needed"
        )
    return {split: tokens[:passages, :length] for split, tokens in probes.items()}


def read_splits(
    recurrence: Recurrence, probes: Mapping[str, Tensor], warmup: int
) -> dict[str, ProbeContexts]:
    """Read the passages [P, warmup + T] of all splits side by side, which is faster; T is >= 2."""
    passages = torch.cat(list(probes.values())).to(recurrence.start(1).device)
    first = max(0, warmup - 1)
    # The context before the first token that counts is kept whole: everything goes on from it.
    begin, rest = passages[:, : first + 1], passages[:, first + 1 :]
    one, before = recurrence.rollout(begin, recurrence.starts(passages), warmup=first)
    others, last = recurrence.rollout(rest, before)
    trajectory, ends = torch.cat([one, others], dim=1), torch.stack([before, last])
    counts = [len(tokens) for tokens in probes.values()]
    parts = zip(
        probes, passages.split(counts), trajectory.split(counts), ends.split(counts, 1), strict=True
    )
    return {
        split: ProbeContexts(tokens, tokens[:, warmup:], rows, of_ends, recurrence.is_projected)
        for split, tokens, rows, of_ends in parts
    }


def exploded(read: Mapping[str, ProbeContexts]) -> list[str]:
    """Return the splits with a context that is not finite."""
    return [split for split, of in read.items() if not bool(of.trajectory.isfinite().all())]


def require_finite(
    read: dict[str, ProbeContexts], recurrence: Recurrence
) -> dict[str, ProbeContexts]:
    """Return what `recurrence` read, or raise `DivergedError`: a context is not finite."""
    if splits := exploded(read):
        raise DivergedError(
            f"contexts of the {' and '.join(splits)} passages are not finite: the recurrence "
            f"explodes{recurrence.remedy}"
        )
    return read


def random_signs(like_C: Tensor, seed: int) -> Tensor:
    """Return signs in the shape and type of `like_C`; the same ones on every device."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, like_C.shape, generator=generator) * 2 - 1).to(like_C)


def sketches(vectors_NC: Tensor, signs_C: Tensor) -> Tensor:
    """Return the sketches of vectors [N, K]; `signs_C` are those of `random_signs`."""
    padding = -len(signs_C) % PLACES
    return torch.stack(
        [F.pad(v * signs_C, (0, padding)).view(-1, PLACES).sum(0) for v in vectors_NC]
    )


def sketched_sections(read: ProbeContexts, figures: dict[str, Any]) -> dict[str, Any]:
    """Return what takes the place of `figures` of sketches, and how far off those may be.

    Means and variances of single dimensions are taken from the contexts at both ends of every
    passage, at evenly spaced dimensions. `distance_error` is that of a squared distance, relative.
    A sketch of half as many places has twice the bias, so what the rank gains from half to all of
    them is about what it still lacks: `effective_rank_error`.
    """
    states_NC = read.ends.flatten(0, 1)
    dimensions, rank = states_NC.shape[1], figures["effective_rank"]
    ceiling = effective_rank_ceiling(len(read.contexts), dimensions) * dimensions
    return {
        "effective_rank_ratio": rank / dimensions,
        "effective_rank_ceiling_ratio": rank / ceiling,
        **distribution(states_NC[:, :: -(-dimensions // SHOWN_DIMENSIONS)]),
        "sketch": {
            "places": PLACES,
            "dimensions": dimensions,
            "distance_error": (2 / PLACES) ** 0.5,
            "effective_rank_error": abs(rank - effective_rank(_folded(read.contexts, 2))),
        },
    }


def probe_places(read: ProbeContexts) -> Tensor:
    """Return the trajectory that memory probes are fitted to [P, S, K]."""
    return _folded(read.trajectory, FOLDS_FOR_PROBES) if read.is_projected else read.trajectory


def _folded(sketch_NK: Tensor, times: int) -> Tensor:
    """Return sketches with a `times`-th of the places [N, ceil(K / times)], as good as new."""
    padded = F.pad(sketch_NK, (0, -sketch_NK.shape[-1] % times))
    return padded.unflatten(-1, (times, -1)).sum(-2)
