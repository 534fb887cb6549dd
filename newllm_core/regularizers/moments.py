"""Running moments, which several regularizers share. N: contexts, D: dimensions."""

from torch import Tensor


def running_moments(
    contexts_ND: Tensor, mean_D: Tensor, variance_D: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Running mean and variance after one more batch; the batch's share carries its gradient.

        m' = μ m + (1-μ) mean_N(c)      v' = μ v + (1-μ) mean_N((c - m)²)

    Deviations are taken from the mean `m` before the batch: a batch of one has a variance too, and
    a batch that moved away as a whole is not mistaken for one that shrank.

    Args:
        contexts_ND: [N, D].
        mean_D: running mean [D] before this batch.
        variance_D: running variance [D] before this batch.
        momentum: μ, the share of the past.

    Returns:
        The new mean [D] and variance [D], in the precision of the contexts.
    """
    mean_D = mean_D.to(contexts_ND.dtype)
    deviations_ND = contexts_ND - mean_D
    new_mean_D = mean_D + (1 - momentum) * deviations_ND.mean(0)
    spread_D = deviations_ND.square().mean(0)
    return new_mean_D, momentum * variance_D.to(contexts_ND.dtype) + (1 - momentum) * spread_D
