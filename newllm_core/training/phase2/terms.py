"""What the loss of Phase 2 is made of.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.runtime.device import to_device


@dataclass(frozen=True)
class Terms:
    """One step's loss; of several processes, each has its share.

    Attributes:
        total: what is minimised; carries the gradient.
        plain: every term before weighting, without gradient, by name; "cross-entropy" is that of
            the heads together.
        num_tokens: rows it is the mean over.
    """

    total: Tensor
    plain: dict[str, Tensor]
    num_tokens: int


def mixture_loss(nats_N: Tensor, gate_N: Tensor, counted_N: Tensor) -> Tensor:
    """Compute the mean nats of `(1 - g) p + g q`, g = σ(gate), for p that is not to change by it.

    A head that were trained for what is left by the counts would soon be no match for them, and a
    gate that closes teaches it nothing any more; so heads learn as they do without counts.
    """
    own_N = F.logsigmoid(-gate_N) - nats_N
    return -torch.logaddexp(own_N, F.logsigmoid(gate_N) + counted_N).mean()


def counted(
    model: LanguageModel, inputs_N: Tensor, targets_N: Tensor, positions_N: np.ndarray
) -> Tensor | None:
    """Look up what the model's bigrams say of `targets_N` after `inputs_N`; None if it has none.

    The targets are training tokens at `positions_N`: a place that was counted (one of the first
    `counted_tokens`, if that is set) is left out of its own counts.
    """
    if model.bigrams is None:
        return None
    limit = model.config.counted_tokens
    own_N = torch.from_numpy(positions_N < (math.inf if limit is None else limit))
    own_N = to_device(own_N, inputs_N.device)
    return model.bigrams.log_probability(inputs_N, targets_N, counted_N=own_N)


def drop(
    values_NC: Tensor, share: float, generator: torch.Generator, rows: Sequence[int]
) -> Tensor:
    """Drop values from a random stream of its own, so that a seed says everything.

    Every process draws for the rows of all: what is dropped does not depend on their number. The
    share is kept to 2^-17.
    """
    if share == 0:
        return values_NC
    shape = (sum(rows), values_NC.shape[1])
    # Four decisions from one draw of 64 bits: a Bernoulli draw each takes several times as long.
    drawn = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=values_NC.device)
    drawn.random_(-(2**63), None, generator=generator)
    chance = drawn.view(torch.int16)[: math.prod(shape)].view(shape)[collectives.own(rows)]
    kept = (chance >= round(share * 2**16) - 2**15).to(values_NC.dtype)
    return values_NC * kept.div_(1 - share)
