"""Counting what the memory that is not learned keeps of a token, before anything is trained.

Shapes: T tokens, E embed_dim, B streams, D numbers of a state.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel
from newllm_core.model.memory import memory_groups
from newllm_core.runtime.device import one_thread
from newllm_core.runtime.progress import Progress, Task

# So many tokens are read at most, in so many streams.
MOST_TOKENS = 1 << 19
MOST_STREAMS = 256
# An average is of little more than this many times 1 / (1 - decay) tokens.
FADED = 4
# Of the mean square of an average: a direction of less variance is rounding.
LEAST_VARIANCE = 1e-6
# Share of the identity in the covariance that coordinates are made equal by. Without it, numbers
# that hardly differ would be as large as all others, and heads would read them worse.
SHRINKAGE = 0.25


@torch.no_grad()
def count_memory(model: LanguageModel, tokens: np.ndarray, *, progress: Progress) -> None:
    """Choose A, B and b of the memory from `tokens` [T].

    Slow units of each decay read the directions in which averages of embedded tokens differ most
    (principal components), the delay line those in which tokens themselves do, each scaled to
    variance 1. Where nothing differs they read nothing. All numbers v together then become

        m = P (v - mean v)        P = ((1 - γ) cov v + γ I)^(-1/2)

    which is ZCA (Bell & Sejnowski 1997) by a covariance with shrinkage γ (Ledoit & Wolf 2004).
    Without a memory nothing is read.
    """
    memory, tokens = model.memory, tokens[:MOST_TOKENS]
    if memory is None:
        return
    groups = memory_groups(model.config)
    size, embed_dim = memory.read.shape
    work = progress.task("counting dimensions", (len(groups) + 1) * len(tokens), "tokens")
    # Sums of several threads are rounded differently.
    with one_thread(), work as task:
        identity_EE = torch.eye(embed_dim).to(memory.read)
        for decay, rows in groups:
            fade = partial(torch.lerp, weight=decay)
            lasting = FADED / (1 - decay)
            mean_E, covariance_EE = _moments(model, tokens, fade, identity_EE, lasting, task)
            found_NE = _principal(mean_E, covariance_EE, rows.stop - rows.start)
            memory.read[rows] = (1 - decay) * found_NE.to(memory.read)
        lasting = max(FADED / (1 - decay) for decay, _ in groups)
        if model.config.delay_dims:
            lasting = max(lasting, model.config.delay_tokens)
        transition, read = memory.transition, memory.read
        settled_DE = torch.linalg.solve(torch.eye(size) - transition, read)
        mean_D, covariance_DD = _moments(
            model, tokens, lambda x, v: memory(v, x), settled_DE, lasting, task
        )
        variance_D, directions_DD = torch.linalg.eigh(covariance_DD)
        deviation_D = (SHRINKAGE + (1 - SHRINKAGE) * variance_D.clamp(min=0)).sqrt()
        whiten_DD = directions_DD / deviation_D @ directions_DD.T
        restore_DD = directions_DD * deviation_D @ directions_DD.T
        raw_DD = transition.double()
        memory.bias.copy_(whiten_DD @ (raw_DD @ mean_D - mean_D))
        memory.read.copy_(whiten_DD @ read.double())
        memory.transition.copy_(whiten_DD @ raw_DD @ restore_DD)
    progress.message(f"counted {size:,} dimensions of the context in {len(tokens):,} tokens")


def _principal(mean_E: Tensor, covariance_EE: Tensor, number: int) -> Tensor:
    """Return directions of most variance, scaled to variance 1 [N, E]; 0 where there is none."""
    variance_E, directions_EE = torch.linalg.eigh(covariance_EE)
    variance_N, direction_NE = variance_E[-number:].flip(0), directions_EE.T[-number:].flip(0)
    # Either sign would do; the same one whatever the library.
    largest_N1 = direction_NE.abs().argmax(1, keepdim=True)
    direction_NE *= direction_NE.gather(1, largest_N1).sign()
    there_N = variance_N > LEAST_VARIANCE * (mean_E.square() + covariance_EE.diagonal()).mean()
    return torch.where(there_N, variance_N, torch.inf).rsqrt()[:, None] * direction_NE


def _moments(
    model: LanguageModel,
    tokens: np.ndarray,
    step: Callable[[Tensor, Tensor], Tensor],
    settled_DE: Tensor,
    lasting: float,
    task: Task,
) -> tuple[Tensor, Tensor]:
    """Read `tokens` [T] in streams: mean [D] and covariance [D, D] of v <- `step`(x, v).

    After `lasting` tokens v has nearly forgotten where it began; a stream has at least five times
    as many, if the text is long enough, and the first `lasting` are not counted (of a short stream
    its first half). v begins as `settled_DE` x, what it tends to while the first token x repeats.
    """
    count = max(1, min(MOST_STREAMS, int(len(tokens) / lasting / 5)))
    ids = tokens[: len(tokens) // count * count]
    ids_BT = torch.from_numpy(np.asarray(ids, np.int64)).view(count, -1)
    state_BD = model.embed(ids_BT[:, 0]) @ settled_DE.T
    total_D = torch.zeros(len(settled_DE), dtype=torch.float64)
    squares_DD = torch.diag(total_D)
    skipped = min(ids_BT.shape[1] // 2, int(lasting))
    for place, ids_B in enumerate(ids_BT.unbind(1)):
        state_BD = step(model.embed(ids_B), state_BD)
        if place >= skipped:
            rows_BD = state_BD.double()
            total_D += rows_BD.sum(0)
            squares_DD += rows_BD.T @ rows_BD
        task.advance(count)
    num_rows = count * (ids_BT.shape[1] - skipped)
    mean_D = total_D / num_rows
    return mean_D, squares_DD / num_rows - mean_D.outer(mean_D)
