"""Speed, tuning, then rows at equal tokens and at equal time; everything through the cache."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.comparison.budget import Setting
from benchmarks.comparison.cache import Cache
from benchmarks.comparison.contestant import Conditions, Contestant
from benchmarks.comparison.tuning import at_edge, tune
from newllm_core.errors import ConfigError, DivergedError

TUNING_SEED = 0
# Ways slower than this, against the best of the first round, are not measured again.
HOPELESS = 2.0


@dataclass
class Comparison:
    """Runs what the cache does not know yet.

    Attributes:
        contestants: who takes part.
        conditions: the same for all.
        cache: of speeds and rows.
        rounds: of the speed measurement.
    """

    contestants: Sequence[Contestant]
    conditions: Conditions
    cache: Cache
    rounds: int

    def measure(self, *, again: bool = False) -> None:
        """Tokens per second of every contestant in every way, a round of each in turn."""
        missing = [c for c in self.contestants if again or self.cache.get(self._speed(c)) is None]
        rates = {(c.name, way): list[float]() for c in missing for way in c.ways}
        for number in range(self.rounds):
            for contestant in missing:
                best = (
                    max(rates[contestant.name, way][0] for way in contestant.ways) if number else 0
                )
                for way in contestant.ways:
                    found = rates[contestant.name, way]
                    if number == 0 or found[0] * HOPELESS >= best:
                        found.append(contestant.rate(way))
                        self._say(
                            f"round {number + 1}/{self.rounds}: {contestant.name} {way} "
                            f"{found[-1]:,.0f} tokens/s"
                        )
        for contestant in missing:
            medians = {
                way: statistics.median(rates[contestant.name, way]) for way in contestant.ways
            }
            self.cache.add(self._speed(contestant), medians)

    def rates(self, contestant: Contestant) -> dict[str, float]:
        """What `measure` found, by way."""
        found = self.cache.get(self._speed(contestant))
        assert found is not None, "measured before"
        return found

    def row(
        self, contestant: Contestant, setting: Setting, seed: int, tokens: int
    ) -> dict[str, Any]:
        """Figures of one run; `bits_per_byte` is None if it diverged."""
        way = max(self.rates(contestant).items(), key=lambda item: item[1])[0]
        key = {
            "row": contestant.name,
            "data": self.conditions.dataset.hash,
            "identity": contestant.identity,
            "steps": self._steps(),
            "way": way,
            "setting": setting.as_dict(),
            "seed": seed,
            "tokens": tokens,
        }
        figures = self.cache.get(key)
        if figures is None:
            what = f"{contestant.name}, {setting}, seed {seed}, {tokens:,} tokens"
            self._say(f"training {what}")
            try:
                figures = contestant.train(setting, seed, tokens, way)
            except DivergedError as error:
                figures = {"bits_per_byte": None, "diverged": str(error)}
            self.cache.add(key, figures)
            reached = figures["bits_per_byte"]
            self._say(
                f"{what}: " + ("diverged" if reached is None else f"{reached:.4f} bits per byte")
            )
        return figures

    def compare(
        self, *, tokens: int, seconds: float | None, seeds: int, grid: str, tune_tokens: int
    ) -> list[dict[str, Any]]:
        """Everything about every contestant (see the keys at the end)."""
        self.measure()
        found = []
        for contestant in self.contestants:
            setting, tuning = self._tune(contestant, grid, tune_tokens)
            rates = self.rates(contestant)
            # Counting has no seed.
            count = 1 if contestant.name == "ngram" else seeds
            by_time = []
            if seconds is not None:
                for seed in range(count):
                    affordable = self.tokens_in(contestant, seconds, seed)
                    by_time.append(self.row(contestant, setting, seed, affordable))
            found.append(
                {
                    "name": contestant.name,
                    "parameters": contestant.parameters,
                    "identity": contestant.identity,
                    "rates": rates,
                    "way": max(rates, key=lambda way: rates[way]),
                    "tokens_per_second": max(rates.values()),
                    "setting": setting.as_dict(),
                    "tuning": tuning,
                    "equal_tokens": [
                        self.row(contestant, setting, seed, tokens) for seed in range(count)
                    ],
                    "equal_time": by_time,
                }
            )
        return found

    def _tune(
        self, contestant: Contestant, grid: str, tokens: int
    ) -> tuple[Setting, list[dict[str, Any]]]:
        """The best setting, and what every setting that was tried reached."""
        tried: dict[Setting, float | None] = {}

        def score(setting: Setting) -> float:
            bits = self.row(contestant, setting, TUNING_SEED, tokens)["bits_per_byte"]
            tried[setting] = bits
            return float("inf") if bits is None else float(bits)

        setting = tune(score, name=contestant.name, grid=grid)
        if at_edge(setting, grid):
            self._say(f"{contestant.name}: the best learning rate is at the edge of the grid")
        rows = [{**one.as_dict(), "bits_per_byte": bits} for one, bits in tried.items()]
        return setting, rows

    def tokens_in(self, contestant: Contestant, seconds: float, seed: int) -> int:
        """Training tokens of a contestant in so many seconds, by its measured speed."""
        left = seconds - contestant.seconds_before(seed)
        step = self.conditions.config.phase2.num_streams * self.conditions.config.phase2.bptt
        steps = int(max(self.rates(contestant).values()) * left / step)
        if steps < 1:
            raise ConfigError(f"{seconds:g} seconds are too few for {contestant.name}")
        return steps * step

    def _speed(self, contestant: Contestant) -> dict[str, Any]:
        return {
            "speed": contestant.name,
            "vocabulary": self.conditions.dataset.info.vocab_size,
            "identity": contestant.identity,
            "ways": list(contestant.ways),
            "steps": self._steps(),
            "threads": torch.get_num_threads(),
        }

    def _steps(self) -> dict[str, Any]:
        """What decides a step of every neural model."""
        phase2 = self.conditions.config.phase2
        names = ("num_streams", "bptt", "warmup_fraction", "weight_decay", "gradient_clip")
        return {name: getattr(phase2, name) for name in (*names, "patience")}

    def _say(self, text: str) -> None:
        self.conditions.progress.message(text)
