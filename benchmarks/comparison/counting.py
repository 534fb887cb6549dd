"""The contestant that only counts: Kneser-Ney n-grams, the floor."""

import time
from typing import Any

import numpy as np

from benchmarks.comparison.contestant import Conditions
from benchmarks.comparison.tuning import Axes, Setting
from benchmarks.peers.ngram import KneserNey
from newllm_core.data.prepared import TokenSplit

RATE_TOKENS = 200_000
# Bytes want longer ones than tokens.
ORDERS = (2, 3, 4, 5, 6, 7, 8, 9, 10)


class Ngram:
    """Reads every token once: more passes would teach it nothing (see `Contestant`)."""

    name = "ngram"
    ways: tuple[str, ...] = ("float64",)
    seeds = False

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.axes: Axes = {"order": ORDERS}
        self.start: Setting = {"order": 5}
        self.speeds: list[Setting] = [{"order": order} for order in ORDERS]

    def identity(self, setting: Setting) -> dict[str, Any]:
        """Return nothing: how many numbers it holds depends on the text."""
        return {}

    def rate(self, setting: Setting, way: str) -> float:
        """Measure the counting of some tokens."""
        begun = time.process_time()
        read = len(self._model(setting, RATE_TOKENS)[1])
        return read / (time.process_time() - begun)

    def train(
        self, setting: Setting, seed: int, tokens: int, way: str, *, test: bool
    ) -> dict[str, Any]:
        """Count the tokens of one pass."""
        model, read = self._model(setting, tokens)
        splits = {"validation": self.conditions.tuned_on()}
        if test:
            splits["test"] = self.conditions.test()
        reached = {name: _bits_per_byte(model, split) for name, split in splits.items()}
        return {**reached, "ngrams": model.num_ngrams, "tokens": len(read)}

    def _model(self, setting: Setting, tokens: int) -> tuple[KneserNey, np.ndarray]:
        dataset = self.conditions.dataset
        read = dataset.train.tokens[:tokens]
        sizes = {"vocab_size": dataset.info.vocab_size, "end_id": int(dataset.info.end_id)}
        return KneserNey(read, order=setting["order"], **sizes), read


def _bits_per_byte(model: KneserNey, split: TokenSplit) -> float:
    return float(-np.log2(model.probabilities(split.tokens)).sum() / split.num_bytes)
