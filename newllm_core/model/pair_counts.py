"""Adding up how often pairs of tokens occur, in bounded memory.

Shapes: P different keys.
"""

from collections.abc import Sequence

import numpy as np


def add_up(
    keys: Sequence[np.ndarray], weights: Sequence[np.ndarray], *, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the different keys in order, and the sum of weights of each [P].

    Of more than `most` the lightest are forgotten: what bounds memory.
    """
    keys_P, places = np.unique(np.concatenate(keys), return_inverse=True)
    weights_P = np.bincount(places, np.concatenate(weights), len(keys_P))
    if len(keys_P) > most:
        kept_P = heaviest(weights_P, most)
        keys_P, weights_P = keys_P[kept_P], weights_P[kept_P]
    return keys_P, weights_P


def heaviest(weights_P: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the largest weights, in order; of equal ones the first."""
    return np.sort(np.argsort(-weights_P, kind="stable")[:most])
