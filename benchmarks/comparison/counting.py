"""The contestant that only counts: Kneser-Ney n-grams, the floor."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.comparison.budget import Budget, Setting
from benchmarks.comparison.contestant import Conditions
from benchmarks.peers.ngram import KneserNey

WAY = "float64"
RATE_TOKENS = 200_000
RATE_ORDER = 5


class Ngram:
    """Reads every token once: more passes would teach it nothing (see `Contestant`)."""

    name = "ngram"
    ways: Sequence[str] = (WAY,)

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.parameters = 0  # depends on the text
        self.identity: dict[str, Any] = {}

    def rate(self, way: str) -> float:
        """Tokens that are counted in a second."""
        tokens = self.conditions.dataset.train.tokens[:RATE_TOKENS]
        begun = time.perf_counter()
        self._model(tokens, RATE_ORDER)
        return len(tokens) / (time.perf_counter() - begun)

    def seconds_before(self, seed: int) -> float:
        """None."""
        return 0.0

    def train(self, setting: Setting, seed: int, tokens: int, way: str) -> dict[str, Any]:
        """Count the tokens of one pass."""
        dataset = self.conditions.dataset
        read = Budget.of(tokens, len(dataset.train.tokens)).tokens
        begun = time.perf_counter()
        model = self._model(dataset.train.tokens[:read], int(setting.as_dict()["order"]))
        seconds = time.perf_counter() - begun
        nats = float(-np.log(model.probabilities(dataset.validation.tokens)).sum())
        loss = nats / len(dataset.validation.tokens)
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)),
            "bits_per_byte": nats / math.log(2) / dataset.validation.num_bytes,
            "num_tokens": len(dataset.validation.tokens),
            "ngrams": model.num_ngrams,
            "epochs": 1,
            "tokens": read,
            "rates": [read / seconds],
            "curve": [],
        }

    def _model(self, tokens: np.ndarray, order: int) -> KneserNey:
        info = self.conditions.dataset.info
        return KneserNey(tokens, vocab_size=info.vocab_size, order=order, end_id=int(info.end_id))
