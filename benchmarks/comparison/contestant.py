"""What takes part in a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from benchmarks.comparison.budget import Budget, Setting
from newllm_core.config import Config, Phase2Config
from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.runtime.progress import Progress

# A round of a speed measurement: this many steps, twice; the first ones choose kernels.
STEPS_PER_ROUND = 16
VALIDATION_TOKENS_PER_ROUND = 256


@dataclass(frozen=True)
class Conditions:
    """The same for every model.

    Attributes:
        dataset: prepared.
        config: of newllm; steps, schedule and precision of all come from its `phase2` and `run`.
        parameters: wanted size.
        context: window of models that carry no state.
        device: where to compute.
        progress: is told how far training is.
    """

    dataset: PreparedDataset
    config: Config
    parameters: int
    context: int
    device: torch.device
    progress: Progress

    def phase2(self, setting: Setting, budget: Budget) -> Phase2Config:
        """Phase 2 of newllm and, but for its model, the training of every peer."""
        return replace(
            self.config.phase2,
            **setting.as_dict(),
            epochs=budget.epochs,
            max_tokens=budget.tokens,
        )

    def cut(self) -> PreparedDataset:
        """As much text as a round of a speed measurement reads."""
        step = self.config.phase2.num_streams * self.config.phase2.bptt
        return replace(
            self.dataset,
            train=_beginning(self.dataset.train, STEPS_PER_ROUND * step),
            validation=_beginning(self.dataset.validation, VALIDATION_TOKENS_PER_ROUND),
        )


def _beginning(split: TokenSplit, tokens: int) -> TokenSplit:
    import numpy as np

    tokens = min(tokens, len(split.tokens))
    return TokenSplit(split.tokens[:tokens], np.array([0, tokens]), np.array([1]), 1, 1)


class Contestant(Protocol):
    """One row of the table.

    Attributes:
        name: as in `--models`.
        parameters: how many numbers it holds.
        identity: everything that decides its result beside setting, seed and budget.
        ways: of matrix products that may be tried; the fastest is taken.
    """

    name: str
    parameters: int
    identity: dict[str, Any]
    ways: Sequence[str]

    def rate(self, way: str) -> float:
        """Training tokens per second of one round."""

    def seconds_before(self, seed: int) -> float:
        """Seconds of training that are spent before the first labelled token."""

    def train(self, setting: Setting, seed: int, tokens: int, way: str) -> dict[str, Any]:
        """Train anew on `tokens` tokens; see `training.train_peer` for the figures."""
