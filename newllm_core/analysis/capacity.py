"""Memory capacity: what share of an earlier input's variance a linear readout gives back.

For every lag k a ridge regression reads the input k steps back from the state; its worth is the
squared correlation with that input, on passages it was not fitted on. The sum over k >= 1 is the
memory capacity (Jaeger 2001): a delay line of n + 1 places has n, and no state of n numbers more
than n of independent inputs.

Inputs are what token ids stand for, F numbers each; without such numbers each frequent token is
one, which is 1 where it was read. Several are weighted by their variance.

Shapes: P passages, T tokens, N contexts, D numbers kept of a context, Y classes of tokens.
"""

from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.token_memory import Labelled, held_out

# Of the largest variance of a direction. The best one is chosen on one half of the passages that
# are held out and used on the other half, and the reverse.
RIDGES = (1e-10, 1e-4)


def memory_capacity(labelled: Labelled, values_YF: Tensor | None = None) -> dict[str, Any]:
    """Return how much of earlier inputs can be read back.

    Args:
        labelled: contexts and the classes of earlier tokens.
        values_YF: what the tokens of each class stand for.

    Returns:
        `by_lag`: squared correlations for lag 0 (the token just read), 1, …; `total`: their sum
        without lag 0.
    """
    classes = labelled.num_classes
    device = labelled.contexts.device
    if values_YF is None:
        values_YF = torch.eye(classes, dtype=torch.float64, device=device)
    held = held_out(len(labelled.contexts))
    fitted_ND = labelled.contexts[~held].flatten(0, 1).double()
    mean_D = fitted_ND.mean(dim=0)
    centred_ND = fitted_ND - mean_D
    variance_D, basis_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
    seen_PTD = (labelled.contexts[held].double() - mean_D) @ basis_DD
    by_lag = []
    for of_fitted, of_held in zip(
        labelled.classes[:, ~held].flatten(1), labelled.classes[:, held], strict=True
    ):
        sums_YD = centred_ND.new_zeros(classes, len(mean_D)).index_add_(0, of_fitted, centred_ND)
        along_DF = basis_DD.T @ (sums_YD.T @ values_YF)
        by_lag.append(_worth(seen_PTD, along_DF, variance_D, values_YF[of_held]))
    return {"by_lag": by_lag, "total": sum(by_lag[1:])}


def _worth(seen_PTD: Tensor, along_DF: Tensor, variance_D: Tensor, wanted_PTF: Tensor) -> float:
    largest = float(variance_D[-1].clamp(min=1e-300))
    told = [
        seen_PTD @ (along_DF / (variance_D.clamp(min=0) + ridge * largest)[:, None])
        for ridge in RIDGES
    ]
    halves = [slice(0, None, 2), slice(1, None, 2)] if len(seen_PTD) > 1 else [slice(None)] * 2
    found = [[_correlation(told_PTF[h], wanted_PTF[h]) for told_PTF in told] for h in halves]
    best = [max(range(len(RIDGES)), key=of_half.__getitem__) for of_half in found]
    return (found[0][best[1]] + found[1][best[0]]) / 2


def _correlation(told_PTF: Tensor, wanted_PTF: Tensor) -> float:
    """Return squared correlations without those of chance, weighted by the variances wanted."""
    told_NF, wanted_NF = (
        x.flatten(0, -2) - x.flatten(0, -2).mean(0) for x in (told_PTF, wanted_PTF)
    )
    both_F = (told_NF * wanted_NF).sum(dim=0).square()
    told_F, wanted_F = told_NF.square().sum(dim=0), wanted_NF.square().sum(dim=0)
    # both / (told wanted), times wanted, over the sum of wanted.
    shares_F = torch.where(told_F > 0, both_F / told_F.clamp(min=1e-300), 0.0)
    share = float(shares_F.sum() / wanted_F.sum().clamp(min=1e-300))
    return max(0.0, share - (1 - share) / max(1, len(told_NF) - 2))
