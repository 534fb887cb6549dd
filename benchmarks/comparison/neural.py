"""Contestants that are neural peers."""

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.comparison import precision
from benchmarks.comparison.budget import Budget, Setting
from benchmarks.comparison.contestant import Conditions
from benchmarks.comparison.sizing import solve_width
from benchmarks.comparison.training import train_peer
from benchmarks.peers.base import Peer, count_parameters
from benchmarks.peers.gru import Gru
from benchmarks.peers.lstm import Lstm
from benchmarks.peers.mingru import MinGru
from benchmarks.peers.transformer import Transformer
from newllm_core.data.prepared import PreparedDataset
from newllm_core.runtime.progress import Progress, Silent

PEERS: dict[str, type[Peer]] = {
    "gru": Gru,
    "lstm": Lstm,
    "transformer": Transformer,
    "mingru": MinGru,
}


class NeuralPeer:
    """A peer of the wanted size (see `Contestant`)."""

    def __init__(self, name: str, conditions: Conditions) -> None:
        self.name = name
        self.conditions = conditions
        self.kind = PEERS[name]
        vocab_size = conditions.dataset.info.vocab_size

        def count(width: int) -> int:
            with torch.device("meta"):
                return count_parameters(self.kind(vocab_size, width))

        self.width = solve_width(
            count, conditions.parameters, what=name, steps=self.kind.width_steps
        )
        self.parameters = count(self.width)
        self.identity: dict[str, Any] = {"width": self.width, "parameters": self.parameters}
        if not self.kind.carries_state:
            self.identity["context"] = conditions.context
        self.ways: Sequence[str] = precision.ways(conditions.config.run, conditions.device)

    def build(self, dropout: float, seed: int) -> Peer:
        """A fresh peer; the seed decides its weights."""
        torch.manual_seed(seed)
        peer = self.kind(self.conditions.dataset.info.vocab_size, self.width, dropout)
        return peer.to(self.conditions.device)

    def rate(self, way: str) -> float:
        """Of the second epoch of a few steps."""
        setting = Setting.make(learning_rate=1e-3, dropout=0.1)
        cut = self.conditions.cut()
        budget = Budget(2, len(cut.train.tokens))
        return self._train(cut, setting, 0, budget, way, Silent())["rates"][-1]

    def seconds_before(self, seed: int) -> float:
        """None."""
        return 0.0

    def train(self, setting: Setting, seed: int, tokens: int, way: str) -> dict[str, Any]:
        """Train a fresh peer."""
        dataset = self.conditions.dataset
        budget = Budget.of(tokens, len(dataset.train.tokens))
        return self._train(dataset, setting, seed, budget, way, self.conditions.progress)

    def _train(
        self,
        dataset: PreparedDataset,
        setting: Setting,
        seed: int,
        budget: Budget,
        way: str,
        progress: Progress,
    ) -> dict[str, Any]:
        return train_peer(
            self.build(setting.as_dict()["dropout"], seed),
            dataset,
            self.conditions.phase2(setting, budget),
            way=way,
            context=self.conditions.context,
            seed=seed,
            progress=progress,
        )
