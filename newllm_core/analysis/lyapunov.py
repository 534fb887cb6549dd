"""Lyapunov exponent: how fast a small perturbation of the context grows or dies, inputs held fixed.

A tangent vector is carried along the trajectory, `v <- J_t v` with the Jacobian-vector product of
one update, which is exact; the logarithm of its growth per token, averaged,
is the largest exponent (Benettin et al. 1980). Every passage has its own random vector: on one
trajectory several would turn into the same direction and tell the same story.

Shapes: P passages, T tokens, C context_dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import jvp
from torch.nn import functional as F

from newllm_core.analysis.rows import nobody
from newllm_core.analysis.sampling import mean_and_error
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel.sharding import is_divided

# A vector that vanishes altogether has shrunk by this much: its logarithm must stay a number.
SMALLEST_GROWTH = 1e-30
# Of a context's norm: where a cell cannot be differentiated twice, or its weights are divided among
# processes, differences take the place of the derivative.
FINITE_STEP = 1e-3
# Below, a passage is too short for the vector to find its direction and a warm-up costs too much.
DISCARDED_SHARE = 8
MOST_DISCARDED = 64


@torch.no_grad()
def log_growth(
    model: LanguageModel,
    tokens_PT: Tensor,
    start_PC: Tensor,
    vector_PC: Tensor,
    *,
    on_read: Callable[[int], None] = nobody,
) -> Tensor:
    """Return logarithm of the growth of a tangent vector by every token [P, T], float64.

    Args:
        model: the recurrence.
        tokens_PT: what is read.
        start_PC: the contexts before it.
        vector_PC: the perturbations, of any length.
        on_read: told how many tokens have been read, a tangent counting as another row.
    """
    vector_PC = F.normalize(vector_PC, dim=1)
    context_PC = start_PC
    grown = []
    for token in model.embed(tokens_PT).unbind(1):
        context_PC, pushed_PC = push_forward(model, context_PC, token, vector_PC)
        norm_P1 = pushed_PC.norm(dim=1, keepdim=True)
        vector_PC = torch.where(norm_P1 > 0, pushed_PC / norm_P1, vector_PC)
        grown.append(norm_P1[:, 0].double().clamp(min=SMALLEST_GROWTH).log())
        on_read(2 * len(context_PC))
    return torch.stack(grown, dim=1)


def push_forward(
    model: LanguageModel, context_PC: Tensor, token_PE: Tensor, vector_PC: Tensor
) -> tuple[Tensor, Tensor]:
    """The context after a token [P, C], and the Jacobian of that update times `vector_PC`."""

    def update(context_PC: Tensor) -> Tensor:
        return model.step(context=context_PC, token=token_PE)[-1]

    if all(cell.twice_differentiable for cell in model.cells()) and not is_divided(model.blocks):
        # Two reverse passes are as exact as one forward and run in C++ alone; torch's forward mode
        # spends most of its time in Python here, and imports a compiler first.
        after_PC, pushed_PC = jvp(update, context_PC, vector_PC)
        return after_PC, pushed_PC
    step = FINITE_STEP * context_PC.norm(dim=1, keepdim=True).clamp(min=1)
    ahead_PC, behind_PC = (
        update(context_PC + step * vector_PC),
        update(context_PC - step * vector_PC),
    )
    return update(context_PC), (ahead_PC - behind_PC) / (2 * step)


def lyapunov_exponent(log_growth_PT: Tensor) -> dict[str, float]:
    """Return `mean` log growth per token in nats, and its standard error over passages (`stderr`).

    The first tokens of every passage are left out: the vector has to find its direction.
    """
    discard = min(MOST_DISCARDED, log_growth_PT.shape[1] // DISCARDED_SHARE)
    return mean_and_error(log_growth_PT[:, discard:])


def memory_horizon(exponent: float) -> float | None:
    """Return tokens until a perturbation has shrunk to 1/e; None where perturbations grow."""
    return 1 / -exponent if exponent < 0 else None
