"""The figures that decide whether a memory is healthy, measured on exact contexts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import equal_probes, read_splits, require_finite
from newllm_core.analysis.criteria import Figures
from newllm_core.analysis.dynamics import tokens_to_read
from newllm_core.analysis.examiner import Examiner
from newllm_core.analysis.recurrence import ModelRecurrence, worthwhile_threads
from newllm_core.analysis.sections import live_dimensions
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import where_exact
from newllm_core.runtime.progress import Progress, Silent


def health_of(figures: Figures) -> dict[str, Any]:
    """Return what the criteria judge, from all figures of one split (see `Examiner.figures`)."""
    return {
        "num_tokens": figures["num_tokens"],
        "context_dim": figures["context_dim"],
        "drift": figures["repeat_drift"]["third_to_fourth"],
        "converged": figures["converged_ratio"],
        "effective_rank_ratio": figures["effective_rank_ratio"],
        # The sign plays no part: two opposite contexts are as few as two equal ones.
        "mean_cosine": abs(figures["pairwise_cosine"]["mean"]),
        "norm_ratio": figures["norm"]["mean"] / figures["context_dim"] ** 0.5,
        "live_dimensions": live_dimensions(
            figures["dimension_mean"], figures["dimension_variance"]
        ),
        "step_cosine": figures["identity_cosine"]["mean"],
        "token_cosine": figures["token_dependency"]["mean_cosine"],
        "lyapunov_exponent": figures["lyapunov_exponent"]["mean"],
        "tokens_remembered": figures["token_memory"]["total"],
        "tokens_kept": figures["token_memory"]["kept"],
    }


def measure_health(
    model: LanguageModel,
    probes: Mapping[str, Tensor],
    warmup: int,
    config: Config,
    *,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Return `health_of` each split that there are probe passages [P, warmup + T] of.

    Raises:
        DivergedError: a context is not finite.
        InputError: the probes are too short.
    """
    passages = equal_probes(probes, warmup)
    examiner = Examiner(config, warmup=warmup)
    total = tokens_to_read(passages, warmup, config.analysis)
    recurrence = ModelRecurrence(model)
    with (
        torch.no_grad(),
        worthwhile_threads(recurrence, sum(map(len, passages.values()))),
        (progress or Silent()).task("measuring health", total, "tokens") as task,
    ):
        recurrence.task = task
        read = read_splits(recurrence, passages, warmup)
        figures = examiner.figures(recurrence, require_finite(read, recurrence))
    return {split: health_of(of_split) for split, of_split in figures.items()}


def training_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known about how the blocks were trained."""
    return {
        "weight_change": weight_change(checkpoint.model),
        "vacuous_terms": checkpoint.vacuous_terms,
        # Whether Phase 2 began with untrained blocks, as it was asked to.
        "untrained_blocks": bool(checkpoint.gate.get("untrained_blocks", False)),
    }


def weight_change(model: LanguageModel) -> float:
    """Return the distance of the blocks from their initial weights, relative to their norm."""
    pairs = zip(model.blocks.parameters(), model.initial_blocks().parameters(), strict=True)
    moved = norm = 0.0
    with torch.no_grad():
        for now, initial in pairs:
            moved += float(where_exact(now - initial).double().square().sum())
            norm += float(where_exact(initial).double().square().sum())
    return (moved / max(norm, 1e-30)) ** 0.5
