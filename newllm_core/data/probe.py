"""Passages that represent a split in every analysis, kept in the checkpoint as token ids."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from newllm_core.config import AnalysisConfig

# Shorter passages would be mostly warm-up: a small split gets fewer passages instead.
SHORTEST_PASSAGE = 64


def choose_probes(
    splits: Mapping[str, np.ndarray], config: AnalysisConfig
) -> tuple[dict[str, Tensor], int]:
    """Return equal numbers of evenly spaced passages of every split, and their warm-up in tokens.

    `splits` has token ids [T] by name, and so have the passages [P, warmup + L].
    """
    shortest = min(len(tokens) for tokens in splits.values())
    warmup = min(config.warmup_tokens, shortest // 8)
    passages = max(1, min(config.probe_passages, shortest // (warmup + SHORTEST_PASSAGE)))
    length = warmup + max(1, config.probe_tokens // passages)
    length = min(length, shortest // passages)
    probes = {}
    for name, tokens in splits.items():
        begins = np.linspace(0, len(tokens) - length, passages).astype(np.int64)
        rows = [np.asarray(tokens[begin : begin + length], dtype=np.int64) for begin in begins]
        probes[name] = torch.from_numpy(np.stack(rows))
    return probes, warmup
