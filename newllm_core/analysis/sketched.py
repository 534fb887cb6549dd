"""Figures of contexts so long that sketches were kept of them, and how far off they may be.

Norms, distances and cosines are those of the sketches. Means and variances of single dimensions are
taken from the contexts at both ends of every passage, at evenly spaced dimensions.
"""

from typing import Any

from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.distribution import distribution
from newllm_core.analysis.rank import effective_rank, effective_rank_ceiling
from newllm_core.analysis.sketch import PLACES, folded, length_error

SHOWN_DIMENSIONS = 4096
# Probes are fitted to a quarter of the places, which the tokens of a text can still determine.
FOLDS_FOR_PROBES = 4


def sketched_sections(read: ProbeContexts, figures: dict[str, Any]) -> dict[str, Any]:
    """Return what takes the place of `figures` of sketches, and `sketch`.

    A sketch of half as many places has twice the bias, so what the rank gains from half to all of
    them is about what it still lacks.

    Returns:
        Ranks relative to all dimensions, figures of single dimensions, and `sketch`: `places` that
        stand for `dimensions`; `distance_error` of a squared distance, relative; and
        `effective_rank_error`.
    """
    states_NC = read.ends.flatten(0, 1)
    dimensions, rank = states_NC.shape[1], figures["effective_rank"]
    ceiling = effective_rank_ceiling(len(read.contexts), dimensions) * dimensions
    half = effective_rank(folded(read.contexts, 2))
    return {
        "effective_rank_ratio": rank / dimensions,
        "effective_rank_ceiling_ratio": rank / ceiling,
        **distribution(states_NC[:, :: -(-dimensions // SHOWN_DIMENSIONS)]),
        "sketch": {
            "places": PLACES,
            "dimensions": dimensions,
            "distance_error": length_error(),
            "effective_rank_error": abs(rank - half),
        },
    }


def probe_places(read: ProbeContexts) -> Tensor:
    """Return the trajectory that memory probes are fitted to [P, S, K]."""
    return folded(read.trajectory, FOLDS_FOR_PROBES) if read.is_projected else read.trajectory
