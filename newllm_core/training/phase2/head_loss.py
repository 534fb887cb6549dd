"""Cross-entropy of a linear head, as its formula says.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from newllm_core.runtime.precision import at_least_float32

# From weight [V, C] and bias [V] of a head, contexts [N, C] and targets [N].
HeadLoss = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

# Logits that are kept for their gradient: 1 GiB in float32. More are made again when it is wanted.
LOGITS_KEPT = 2**28


def plain_cross_entropy(
    weight_VC: Tensor, bias_V: Tensor, contexts_NC: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute nats of a linear head, in float32 at least: their mean, and of each token [N].

    Those of each have no gradient.
    """
    rows = max(1, LOGITS_KEPT // len(weight_VC))
    if len(targets_N) <= rows:
        nats_N = _nats(contexts_NC, targets_N, weight_VC, bias_V)
    else:
        again = partial(checkpoint, _nats, use_reentrant=False, preserve_rng_state=False)
        parts = zip(contexts_NC.split(rows), targets_N.split(rows), strict=True)
        nats_N = torch.cat([again(*part, weight_VC, bias_V) for part in parts])
    return nats_N.mean(), nats_N.detach()


def _nats(contexts_NC: Tensor, targets_N: Tensor, weight_VC: Tensor, bias_V: Tensor) -> Tensor:
    logits_NV = at_least_float32(F.linear(contexts_NC, weight_VC, bias_V))
    return F.cross_entropy(logits_NV, targets_N, reduction="none")
