"""Counting what slow units and the delay line keep of a token, before anything is trained.

Shapes: T tokens, E embed_dim, B streams, S dimensions.
"""

import numpy as np
import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel
from newllm_core.model.slow import SlowUnits
from newllm_core.runtime.device import one_thread
from newllm_core.runtime.progress import Progress, Task

# So many tokens are read at most, in so many streams.
MOST_TOKENS = 1 << 19
MOST_STREAMS = 256


@torch.no_grad()
def count_dims(model: LanguageModel, tokens: np.ndarray, *, progress: Progress) -> None:
    """Choose W and b of counted units so that these have mean 0 and variance 1 in `tokens` [T].

    Units of each decay are the directions in which its averages of embedded tokens differ most
    (principal components), those of the delay line the directions in which tokens themselves do.
    Where these do not differ, units stay 0. Without counted units nothing is read.
    """
    tokens = tokens[:MOST_TOKENS]
    units = model.counted_units()
    if not units:
        return
    wanted = []
    for unit in units:
        decay_S = unit.decay if isinstance(unit, SlowUnits) else torch.zeros(len(unit.bias))
        wanted += [(unit, decay, decay_S == decay) for decay in decay_S.unique().tolist()]
    work = progress.task("counting dimensions", len(wanted) * len(tokens), "tokens")
    # Sums of several threads are rounded differently.
    with one_thread(), work as task:
        for unit, decay, chosen_S in wanted:
            mean_E, covariance_EE = fading_averages(model, tokens, decay, task)
            variance_E, directions_EE = torch.linalg.eigh(covariance_EE)
            kept = slice(-int(chosen_S.sum()), None)
            variance_S, direction_SE = variance_E[kept].flip(0), directions_EE.T[kept].flip(0)
            # Either sign would do; the same one whatever the library.
            largest_S1 = direction_SE.abs().argmax(1, keepdim=True)
            direction_SE *= direction_SE.gather(1, largest_S1).sign()
            there_S = variance_S > 1e-6 * mean_E.square().mean()
            scale_S = torch.where(there_S, variance_S, torch.inf).rsqrt()
            unit.weight[chosen_S] = (scale_S[:, None] * direction_SE).to(unit.weight)
            unit.bias[chosen_S] = -unit.weight[chosen_S] @ mean_E.to(unit.weight)
    dims = sum(unit.num_dims for unit in units)
    progress.message(f"counted {dims:,} dimensions of the context in {len(tokens):,} tokens")


def fading_averages(
    model: LanguageModel, tokens: np.ndarray, decay: float, task: Task
) -> tuple[Tensor, Tensor]:
    """Read `tokens` [T] in streams: mean [E] and covariance [E, E] of averages that fade."""
    count = max(1, min(MOST_STREAMS, int(len(tokens) * (1 - decay) / 20)))
    read = tokens[: len(tokens) // count * count]
    ids_BT = torch.from_numpy(np.asarray(read, np.int64)).view(count, -1)
    average_BE = model.embed(ids_BT[:, 0])
    total_E = torch.zeros(average_BE.shape[1], dtype=torch.float64)
    squares_EE = torch.diag(total_E)
    # The first averages of a stream stand for too few tokens.
    skipped = min(ids_BT.shape[1] // 2, int(4 / (1 - decay)))
    for place, ids_B in enumerate(ids_BT.unbind(1)):
        average_BE = model.embed(ids_B).lerp(average_BE, decay)
        if place >= skipped:
            rows_BE = average_BE.double()
            total_E += rows_BE.sum(0)
            squares_EE += rows_BE.T @ rows_BE
        task.advance(count)
    num_rows = count * (ids_BT.shape[1] - skipped)
    mean_E = total_E / num_rows
    return mean_E, squares_EE / num_rows - mean_E.outer(mean_E)
