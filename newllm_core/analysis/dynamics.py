"""Dynamics: everything that needs the recurrence to be run again, for all splits side by side.

The contexts that the probes have already given are the trajectory that perturbed ones are compared
with. Repeat test: read a passage n times and n + 1 times, carrying the state; how far apart are
they? Where the context vector fixed-point property (CVFP) holds, that goes to zero with n.

Shapes: P passages of all splits, T tokens, S = T + 1 contexts in a row, L tokens that are repeated,
C context_dim, K numbers kept of a context.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.echo_state import (
    SWEPT_TOKENS,
    converged_share,
    distances,
    echo_state,
    random_start,
    sweeps,
    text_errors,
    typical_errors,
)
from newllm_core.analysis.lyapunov import log_growths, lyapunov_exponent
from newllm_core.analysis.recurrence import Recurrence
from newllm_core.analysis.summary import gaussian_like, mean_and_error
from newllm_core.config import AnalysisConfig

# Late enough that the start state is forgotten where it will ever be.
CVFP_READING = 3


def dynamics(
    recurrence: Recurrence,
    read: Mapping[str, ProbeContexts],
    config: AnalysisConfig,
    *,
    converged_below: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Perturb, restart and repeat the passages of every split, which have equal shapes.

    Contexts whose mean squared difference is less than `converged_below` count as the same:
    `converged_ratio` is the share of tokens whose context does not depend on the start.
    `along_text` is the growth of a disturbance by each token of the first passage.
    """
    extent = config.dynamics_passages, config.dynamics_steps
    chosen = [of_split.evenly(*extent) for of_split in read.values()]
    trajectories, texts, firsts = zip(*chosen, strict=True)
    trajectory_PSK, tokens_PT = torch.cat(trajectories), torch.cat(texts)
    own_PC = torch.cat(firsts)
    # Drawn split by split, so that a split has the same figures whatever is beside it.
    vector_PC = torch.cat([gaussian_like(of_split, seed) for of_split in firsts])
    growth_PT1 = log_growths(recurrence, tokens_PT, own_PC, vector_PC[:, None])
    growth_PT = growth_PT1[..., 0]
    random = [random_start(of_split, seed) for of_split in firsts]
    starts = torch.cat([*random, recurrence.start(len(own_PC))])
    twice = tokens_PT.repeat(2, 1), trajectory_PSK.repeat(2, 1, 1)
    from_random_PS, from_start_PS = distances(recurrence, *twice, starts).chunk(2)
    count = len(texts[0])
    if count > 1 and not bool(torch.isfinite(from_random_PS).all()):
        # Not every state is one from which a network can go on: take those of other passages.
        others_PC = torch.cat([of_split.roll(1, 0) for of_split in firsts])
        from_random_PS = distances(recurrence, tokens_PT, trajectory_PSK, others_PC)
    repeated_PL = tokens_PT[:, : config.repeated_tokens]
    drift_PR = drift(recurrence, repeated_PL, readings=config.readings)

    found = {}
    for index, split in enumerate(read):
        part = slice(index * count, (index + 1) * count)
        exponent = lyapunov_exponent(growth_PT[part], delay=recurrence.delay)
        same_PT = from_random_PS[part, 1:].square() / recurrence.context_dim < converged_below
        off, exact = from_start_PS[part], trajectory_PSK[part]
        found_sweeps = sweeps(typical_errors(off, exact), text_errors(off, exact), exponent["mean"])
        found_sweeps["converged"] = converged_share(
            recurrence,
            tokens_PT[part],
            exact,
            count=found_sweeps["predicted"]["1%"],
            converged_below=converged_below,
        )
        found[split] = {
            "lyapunov_exponent": exponent,
            # Tokens until a perturbation has shrunk to 1/e, where perturbations shrink.
            "memory_horizon": -1 / exponent["mean"] if exponent["mean"] < 0 else None,
            "converged_ratio": float(same_PT.double().mean()),
            "echo_state": echo_state(from_random_PS[part]),
            "sweeps": found_sweeps,
            "repeat_drift": repeat_drift(drift_PR[part]),
            "along_text": {
                "tokens": texts[index][0].tolist(),
                "log_growth": growth_PT[part][0].tolist(),
            },
        }
    return found


def exponent_of(
    recurrence: Recurrence, read: ProbeContexts, config: AnalysisConfig, *, seed: int
) -> float:
    """Return λ alone, as `dynamics` measures it."""
    extent = config.dynamics_passages, config.dynamics_steps
    _, tokens_PT, start_PC = read.evenly(*extent)
    vector_P1C = gaussian_like(start_PC, seed)[:, None]
    growth_PT1 = log_growths(recurrence, tokens_PT, start_PC, vector_P1C)
    return lyapunov_exponent(growth_PT1[..., 0], delay=recurrence.delay)["mean"]


def tokens_to_read(probes: Mapping[str, Tensor], warmup: int, config: AnalysisConfig) -> int:
    """Count what a recurrence reads of all splits [P, warmup + T] for its health."""
    tokens = 0
    for passages in probes.values():
        count = min(len(passages), config.dynamics_passages)
        steps = min(passages.shape[1] - max(1, warmup), config.dynamics_steps)
        # A tangent costs as much as another row; an echo is read from two starts.
        repeated = config.readings * min(steps, config.repeated_tokens)
        tokens += passages.numel() + count * ((4 + SWEPT_TOKENS) * steps + repeated)
    return tokens


@torch.no_grad()
def drift(recurrence: Recurrence, tokens_PL: Tensor, *, readings: int) -> Tensor:
    """Return relative root mean square distance [P, readings - 1] of each reading from the next."""
    before_PLK, context_PC = recurrence.rollout(tokens_PL, recurrence.start(len(tokens_PL)))
    drifts = []
    for _ in range(readings - 1):
        after_PLK, context_PC = recurrence.rollout(tokens_PL, context_PC)
        moved_P = (after_PLK.double() - before_PLK.double()).square().sum(dim=(1, 2))
        size_P = after_PLK.double().square().sum(dim=(1, 2)).clamp(min=1e-300)
        drifts.append((moved_P / size_P).sqrt())
        before_PLK = after_PLK
    return torch.stack(drifts, dim=1)


def repeat_drift(drift_PR: Tensor) -> dict[str, Any]:
    """Summarise the drift [P, readings - 1] after 1, 2, … readings, of at least four.

    CVFP is judged by `third_to_fourth`.
    """
    figures = [mean_and_error(of_repeat[:, None]) for of_repeat in drift_PR.unbind(1)]
    return {
        "third_to_fourth": figures[CVFP_READING - 1]["mean"],
        "by_repeat": [figure["mean"] for figure in figures],
        "stderr_by_repeat": [figure["stderr"] for figure in figures],
    }
