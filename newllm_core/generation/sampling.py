"""Which token comes next. Shape: V vocabulary, or what is left of it."""

import math
from collections.abc import Collection

import numpy as np
import torch

from newllm_core.config import GenerationConfig
from newllm_core.errors import DivergedError


def choose(
    logits_V: np.ndarray,
    options: GenerationConfig,
    generator: torch.Generator,
    penalised: Collection[int] = (),
) -> int:
    """Draw a token id; among equally likely tokens, limits keep the smaller ids.

    The logits of `penalised` ids are divided by `repetition_penalty` if they are positive, and
    multiplied by it if not (Keskar et al. 2019, CTRL, section 4.1, for logits of either sign).

    Top-k (Fan et al. 2018) comes first, then top-p (Holtzman et al. 2020) of what it leaves. A draw
    takes one number from `generator`, the most likely token (temperature 0) takes none.

    Raises:
        DivergedError: a logit is not a number, or infinite.
    """
    largest = float(logits_V.max())
    if not math.isfinite(largest):
        raise DivergedError(
            "the logits are not finite: the context grew without bounds "
            "(a model with cell.layernorm_mix below 1 does that on long texts)"
        )
    if penalised:
        logits_V, ids = logits_V.copy(), list(penalised)
        came, penalty = logits_V[ids], options.repetition_penalty
        logits_V[ids] = np.where(came > 0, came / penalty, came * penalty)
        largest = float(logits_V.max())
    if options.temperature == 0:
        return int(logits_V.argmax())
    # The largest logit becomes 0 first, and no temperature is rounded to 0: a tiny one must not
    # make infinities.
    temperature = max(options.temperature, float(np.finfo(logits_V.dtype).tiny))
    with np.errstate(over="ignore", under="ignore"):
        weights_V = np.exp((logits_V - largest) / temperature)
    ids_V = None
    if options.top_k is not None and options.top_k < len(weights_V):
        least = np.partition(weights_V, -options.top_k)[-options.top_k]
        ids_V = _most_likely(weights_V, options.top_k, least)
        weights_V = weights_V[ids_V]
    if options.top_p < 1:
        kept_V = _nucleus(weights_V, options.top_p)
        ids_V = kept_V if ids_V is None else ids_V[kept_V]
        weights_V = weights_V[kept_V]
    reached_V = weights_V.cumsum(dtype=np.float64)
    draw = torch.rand((), generator=generator, dtype=torch.float64).item() * reached_V[-1]
    place = min(int(reached_V.searchsorted(draw, side="right")), len(reached_V) - 1)
    return place if ids_V is None else int(ids_V[place])


def _nucleus(weights_V: np.ndarray, top_p: float) -> np.ndarray:
    """Return places of the fewest largest weights that make up a share `top_p` of all."""
    total = float(weights_V.sum(dtype=np.float64))
    # Even all together, weights below this are no more than the share that is left out.
    likely = weights_V[weights_V >= (1 - top_p) / len(weights_V) * total]
    falling = np.sort(likely)[::-1]
    reached = falling.cumsum(dtype=np.float64)
    last = min(int(reached.searchsorted(top_p * total)), len(falling) - 1)
    return _most_likely(weights_V, last + 1, falling[last])


def _most_likely(weights_V: np.ndarray, count: int, least: float) -> np.ndarray:
    """Places of the `count` largest weights, the smallest of which is `least`; in their order."""
    places = np.flatnonzero(weights_V >= least)
    surplus = len(places) - count
    if surplus > 0:
        tied = np.flatnonzero(weights_V[places] == least)
        places = np.delete(places, tied[-surplus:])
    return places
