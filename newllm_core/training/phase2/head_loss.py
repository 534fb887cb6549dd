"""Cross-entropy of a linear head, as its formula says.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from newllm_core.runtime.precision import at_least_float32

# From weight [V, C] and bias [V] of a head, contexts [N, C] and targets [N].
HeadLoss = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def plain_cross_entropy(
    weight_VC: Tensor, bias_V: Tensor, contexts_NC: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute nats of a linear head, in float32 at least: their mean, and of each token [N].

    Those of each have no gradient.
    """
    logits_NV = at_least_float32(F.linear(contexts_NC, weight_VC, bias_V))
    nats_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    return nats_N.mean(), nats_N.detach()
