"""Contestants that are neural models of the wanted size, newllm's own among them."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from benchmarks.comparison import precision
from benchmarks.comparison.budget import Budget
from benchmarks.comparison.contestant import Conditions
from benchmarks.comparison.reading import bits_per_byte
from benchmarks.comparison.sizing import solve_width
from benchmarks.comparison.training import train_peer
from benchmarks.comparison.tuning import (
    DECAYS,
    DROPOUTS,
    FIRST_DROPOUT,
    FIRST_RATE,
    RATE,
    RATES,
    Axes,
    Setting,
)
from benchmarks.peers.base import TOKENS_PER_STEP, Peer, count_parameters
from benchmarks.peers.context_vector import ContextVector
from benchmarks.peers.gru import Gru
from benchmarks.peers.lstm import Lstm
from benchmarks.peers.mingru import MinGru
from benchmarks.peers.transformer import Transformer
from newllm_core.config import Phase2Config
from newllm_core.model.bigrams import Bigrams
from newllm_core.model.counting import count_bigrams, count_embeddings

PEERS: dict[str, type[Peer]] = {
    "newllm": ContextVector,
    "gru": Gru,
    "lstm": Lstm,
    "mingru": MinGru,
    "transformer": Transformer,
}
# What they start from: chance, or counts of the tokens that the run reads.
EMBEDDINGS = ("random", "counts")
# Pairs of tokens that are counted in what the run reads, and mixed with; 0 for none.
BIGRAMS = (0, 1 << 19)
# Tokens that targets are compared with until the last fifth of the steps; 0 for the vocabulary.
CANDIDATES = (0, 2048)
# A round of a speed measurement: this many steps, twice; the first ones choose kernels.
STEPS_PER_ROUND = 8
# Axes that are options of Phase 2.
OF_PHASE2 = (RATE, "dropout", "input_dropout", "weight_decay", "candidates")


class NeuralPeer:
    """A peer of the wanted size (see `Contestant`)."""

    seeds = True

    def __init__(self, name: str, conditions: Conditions) -> None:
        self.name = name
        self.conditions = conditions
        self.kind: Any = PEERS[name]
        shapes = self.kind.shapes
        # What changes most comes first: dropout and decay that fit a random start fit no other.
        self.axes: Axes = {
            RATE: RATES,
            "embeddings": EMBEDDINGS,
            "bigrams": BIGRAMS,
            "candidates": CANDIDATES,
            "window": self.kind.windows,
            "shape": shapes,
            "dropout": DROPOUTS,
            "input_dropout": DROPOUTS,
            "weight_decay": DECAYS,
        }
        self.start: Setting = {axis: values[0] for axis, values in self.axes.items()}
        # Without any dropout a counted start overfits sooner than a random one, and loses to it.
        self.start |= {RATE: FIRST_RATE, "dropout": FIRST_DROPOUT, "input_dropout": FIRST_DROPOUT}
        self.speeds: list[Setting] = [
            {"window": window, "shape": shape, "candidates": candidates}
            for window in self.kind.windows
            for shape in shapes
            for candidates in CANDIDATES
        ]
        self.ways = precision.ways(conditions.run, conditions.device)
        self.width = cache(self._width)

    def _width(self, shape: str) -> int:
        return solve_width(
            lambda width: self._count(shape, width),
            self.conditions.parameters,
            what=self.name,
            steps=self.kind.width_steps,
        )

    def _count(self, shape: str, width: int) -> int:
        with torch.device("meta"):
            return count_parameters(self.kind(self._vocab_size, width, shape=shape))

    @property
    def _vocab_size(self) -> int:
        return self.conditions.dataset.info.vocab_size

    def identity(self, setting: Setting) -> dict[str, Any]:
        """Return width and number of parameters."""
        width = self.width(setting["shape"])
        return {"width": width, "parameters": self._count(setting["shape"], width)}

    def build(self, setting: Setting, seed: int) -> Peer:
        """Make a fresh peer; the seed decides its weights."""
        torch.manual_seed(seed)
        options = {name: setting[name] for name in ("shape", "dropout", "input_dropout")}
        peer = self.kind(self._vocab_size, self.width(setting["shape"]), **options)
        placed: Peer = peer.to(self.conditions.device)
        return placed

    def rate(self, setting: Setting, way: str) -> float:
        """Measure the second of two passes over a few steps; nothing is dropped."""
        setting = self.start | setting
        tokens = STEPS_PER_ROUND * TOKENS_PER_STEP
        config = phase2(setting, Budget(2, tokens))
        # As many of the second pass draw candidates as of a whole run.
        config = replace(config, candidates_share=(1 + config.candidates_share) / 2)
        figures = train_peer(
            self.build(setting, 0),
            self.conditions.dataset,
            config,
            validation=None,
            way=way,
            seed=0,
        )
        return float(figures["rates"][-1])

    def train(
        self, setting: Setting, seed: int, tokens: int, way: str, *, test: bool
    ) -> dict[str, Any]:
        """Train a fresh peer; the test split is looked at once, with the weights that are kept."""
        dataset, progress = self.conditions.dataset, self.conditions.progress
        config = phase2(setting, Budget.of(tokens, len(dataset.train.tokens)))
        peer = self.build(setting, seed)
        if setting["embeddings"] == "counts":
            read = dataset.train.tokens[: config.max_tokens]
            count_embeddings(peer.embedding.weight, read, seed=seed, progress=progress)
        if setting["bigrams"]:
            bigrams = Bigrams(setting["bigrams"], self._vocab_size)
            read, end_id = dataset.train.tokens[: config.max_tokens], int(dataset.info.end_id)
            count_bigrams(bigrams, read, end_id=end_id, progress=progress)
            peer.mix(bigrams.to(self.conditions.device))
            peer.gate.to(self.conditions.device)
        figures = train_peer(
            peer,
            dataset,
            config,
            validation=self.conditions.tuned_on(),
            way=way,
            seed=seed,
            progress=progress,
        )
        if test:
            figures["test"] = bits_per_byte(
                peer,
                self.conditions.test(),
                end_id=int(dataset.info.end_id),
                way=way,
                context=config.bptt,
                progress=progress,
            )
        return figures


def phase2(setting: Setting, budget: Budget) -> Phase2Config:
    """Make the options of Phase 2 that a setting and a budget mean: newllm's and every peer's."""
    streams, length = map(int, setting["window"].split("x"))
    return Phase2Config(
        epochs=budget.epochs,
        max_tokens=budget.tokens,
        num_streams=streams,
        bptt=length,
        **{name: setting[name] for name in OF_PHASE2},
    )
