"""A long vector as a short one: lengths and angles are kept, but for a known error.

Every number gets a random sign and is added to one of K places, its own place modulo K (a count
sketch: Charikar, Chen & Farach-Colton 2002). K is a prime, so that numbers which belong together
are spread evenly whatever the shape of the state. A squared length has the relative error
`sqrt(2 / K)`.

Shapes: N rows, P passages, S contexts in a row, C numbers, K places.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.rank import effective_rank, effective_rank_ceiling
from newllm_core.analysis.sections import distribution

# Prime.
PLACES = 4093
SHOWN_DIMENSIONS = 4096
# Probes are fitted to a quarter of the places, which the tokens of a text can still determine.
FOLDS_FOR_PROBES = 4


class Sketch:
    """Projects vectors of `size` numbers, on `device` and of `dtype`; `seed` draws the signs."""

    def __init__(self, size: int, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
        self.signs_C = signs.to(device, dtype)
        self.padding = -size % PLACES

    def __call__(self, vectors_NC: Tensor) -> Tensor:
        """Return the sketches [N, K]."""
        rows = [
            F.pad(vector_C * self.signs_C, (0, self.padding)).view(-1, PLACES).sum(0)
            for vector_C in vectors_NC
        ]
        return torch.stack(rows)


def sketched_sections(read: ProbeContexts, figures: dict[str, Any]) -> dict[str, Any]:
    """Return what takes the place of `figures` of sketches, and how far off those may be.

    Norms, distances and cosines are those of the sketches. Means and variances of single dimensions
    are taken from the contexts at both ends of every passage, at evenly spaced dimensions. A sketch
    of half as many places has twice the bias, so what the rank gains from half to all of them is
    about what it still lacks: `effective_rank_error`. `distance_error` is that of a squared
    distance, relative.
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
