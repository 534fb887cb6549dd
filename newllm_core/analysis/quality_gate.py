"""The gate before Phase 2: heads are only trained on contexts that are worth it.

There is no way around it but to set its thresholds, which the checkpoint then records.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.analysis.contexts import equal_probes, probe_contexts
from newllm_core.analysis.norms import norm_summary
from newllm_core.analysis.rank import effective_rank, effective_rank_ceiling
from newllm_core.config import GateConfig
from newllm_core.errors import GateRefused
from newllm_core.model.language_model import LanguageModel

Figures = dict[str, dict[str, Any]]
SPLITS = ("train", "validation")


def gate_figures(contexts: Mapping[str, Tensor]) -> Figures:
    """Return what the gate judges, for each split.

    Args:
        contexts: name of the split to contexts [N, D].

    Returns:
        For each split `effective_rank_ratio` (ER/D), `mean_cosine` (over all pairs), `norm_ratio`
        (mean norm over the square root of D), `num_tokens` and `context_dim`.
    """
    return {split: _figures(contexts_ND) for split, contexts_ND in contexts.items()}


def measure_gate(
    model: LanguageModel,
    probes: Mapping[str, Tensor],
    warmup: int,
    device: torch.device | None = None,
) -> Figures:
    """Return `gate_figures` of a model on probe passages [P, warmup + T] of each split.

    Raises:
        DivergedError: a context is not finite.
        InputError: the probes are too short.
    """
    if device is not None:
        model.to(device)
    passages = equal_probes({split: probes[split] for split in SPLITS}, warmup)
    return gate_figures(
        {
            split: probe_contexts(model, tokens, warmup, split=split).contexts
            for split, tokens in passages.items()
        }
    )


def check_gate(figures: Mapping[str, Mapping[str, Any]], config: GateConfig) -> None:
    """Let healthy contexts pass.

    Raises:
        GateRefused: one line with every criterion that failed, its value, its threshold, and what
            to try.
    """
    missing = [split for split in SPLITS if split not in figures]
    if missing:
        raise GateRefused(f"gate: no figures for {' and '.join(missing)}; run phase1 again")
    failed: list[str] = []
    hints: list[str] = []
    for split, least, name in (
        ("train", config.min_train_rank, "min_train_rank"),
        ("validation", config.min_val_rank, "min_val_rank"),
    ):
        split_failed, split_hints = _failures(split, figures[split], config, least, name)
        failed += split_failed
        hints += [hint for hint in split_hints if hint not in hints]
    if failed:
        raise GateRefused(
            f"gate refused: {'; '.join(failed)}. Try phase1 with {', or '.join(hints)}"
        )


def _failures(
    split: str, figures: Mapping[str, Any], config: GateConfig, least_rank: float, rank_name: str
) -> tuple[list[str], list[str]]:
    rank, cosine, norm = (
        figures[key] for key in ("effective_rank_ratio", "mean_cosine", "norm_ratio")
    )
    failed, hints = [], []
    # Written so that a value which is not a number fails.
    if not rank >= least_rank:
        failed.append(f"{split} ER/D {rank:.3f} is below gate.{rank_name} {least_rank:g}")
        if effective_rank_ceiling(figures["num_tokens"], figures["context_dim"]) < least_rank:
            hints.append("more text (so few tokens cannot reach that rank)")
        else:
            hints.append("--reg covariance-ema or a larger --dist-reg-weight")
    if not abs(cosine) <= config.max_mean_cosine:
        failed.append(
            f"{split} contexts are nearly equal: mean cosine {cosine:.3f} is above "
            f"gate.max_mean_cosine {config.max_mean_cosine:g}"
        )
        hints.append("a larger --dist-reg-weight or --init-std")
    if not norm >= config.min_norm:
        failed.append(
            f"{split} contexts are nearly zero: mean norm/sqrt(D) {norm:.3g} is below "
            f"gate.min_norm {config.min_norm:g}"
        )
        hints.append("--set cell.layernorm_mix=1")
    return failed, hints


def _figures(contexts_ND: Tensor) -> dict[str, Any]:
    count, width = contexts_ND.shape
    return {
        "effective_rank_ratio": effective_rank(contexts_ND) / width,
        "mean_cosine": mean_cosine(contexts_ND),
        "norm_ratio": norm_summary(contexts_ND)["mean"] / width**0.5,
        "num_tokens": count,
        "context_dim": width,
    }


def mean_cosine(contexts_ND: Tensor) -> float:
    """Return mean cosine over all pairs of rows, in one pass: `(‖Σ ĉ‖² - Σ ‖ĉ‖²) / (N (N - 1))`.

    A row of zeros counts as orthogonal to all others; its norm gives it away.
    """
    unit_ND = F.normalize(contexts_ND.double(), dim=1)
    count = len(unit_ND)
    total = unit_ND.sum(0).square().sum() - unit_ND.square().sum()
    return float(total / (count * (count - 1)))
