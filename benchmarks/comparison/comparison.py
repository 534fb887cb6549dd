"""Speed, then tuning and report rows of every contestant; everything through the cache."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.comparison.cache import Cache
from benchmarks.comparison.contestant import Conditions, Contestant
from benchmarks.comparison.tuning import Setting, at_edge, descend, shown
from benchmarks.peers.base import TOKENS_PER_STEP
from newllm_core.errors import ConfigError, DivergedError

# No reported run has the seed of tuning.
TUNING_SEED = 0
# Ways slower than this, against the best of the first round, are not measured again.
HOPELESS = 2.0

Figures = dict[str, Any]


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

    def measure(self) -> None:
        """Measure every setting that differs in speed, in every way, a round of each in turn."""
        missing = [
            (who, setting)
            for who in self.contestants
            for setting in who.speeds
            if self.cache.get(self._speed(who, setting)) is None
        ]
        rates = [{way: list[float]() for way in who.ways} for who, _ in missing]
        for number in range(self.rounds):
            for (who, setting), found in zip(missing, rates, strict=True):
                best = max(found[way][0] for way in who.ways) if number else 0.0
                for way in who.ways:
                    if number == 0 or found[way][0] * HOPELESS >= best:
                        found[way].append(who.rate(setting, way))
                        self._say(
                            f"round {number + 1}/{self.rounds}: {who.name}, {shown(setting)}, "
                            f"{way}: {found[way][-1]:,.0f} tokens/s"
                        )
        for (who, setting), found in zip(missing, rates, strict=True):
            medians = {way: statistics.median(values) for way, values in found.items()}
            self.cache.add(self._speed(who, setting), medians)

    def compare(
        self, *, tokens: int | None = None, seconds: float | None = None, seeds: int
    ) -> list[Figures]:
        """Tune and report every contestant at `tokens`, or else at `seconds`.

        Returns:
            For each `name`, `setting`, `parameters`, `way`, and `rows`: the figures of the reported
            runs.
        """
        if tokens is None:
            self.measure()
        found = []
        for who in self.contestants:

            def run(setting: Setting, seed: int, *, test: bool, who: Contestant = who) -> Figures:
                way, read = self._budget(who, setting, tokens, seconds)
                return self.row(who, setting, seed, read, way, test=test)

            def score(setting: Setting) -> float:
                reached = run(setting, TUNING_SEED, test=False)["validation"]
                return float("inf") if reached is None else float(reached)

            setting = descend(score, who.axes, who.start)
            if at_edge(setting):
                self._say(f"{who.name}: the best learning rate or decay is at its edge")
            found.append(
                {
                    "name": who.name,
                    "setting": setting,
                    **who.identity(setting),
                    "way": self._budget(who, setting, tokens, seconds)[0],
                    "rows": [
                        run(setting, TUNING_SEED + 1 + number, test=True)
                        for number in range(seeds if who.seeds else 1)
                    ],
                }
            )
        return found

    def row(
        self, who: Contestant, setting: Setting, seed: int, tokens: int, way: str, *, test: bool
    ) -> Figures:
        """Return figures of one run; bits per byte are None if it diverged."""
        key = {
            "row": who.name,
            "data": self.conditions.dataset.hash,
            "identity": who.identity(setting),
            "way": way,
            "setting": setting,
            "seed": seed,
            "tokens": tokens,
            "test": test,
        }
        figures = self.cache.get(key)
        if figures is None:
            what = f"{who.name}, {shown(setting)}, seed {seed}, {tokens:,} tokens"
            self._say(f"training {what}")
            try:
                figures = who.train(setting, seed, tokens, way, test=test)
            except DivergedError as error:
                figures = {"validation": None, "test": None, "diverged": str(error)}
            self.cache.add(key, figures)
            reached = figures["test" if test else "validation"]
            said = "diverged" if reached is None else f"{reached:.4f} bits per byte"
            self._say(f"{what}: {said} of {'test' if test else 'validation'} text")
        return figures

    def _budget(
        self, who: Contestant, setting: Setting, tokens: int | None, seconds: float | None
    ) -> tuple[str, int]:
        """Return a way and the tokens to read: the most exact, or the fastest and what it can."""
        if tokens is not None:
            return who.ways[0], tokens
        assert seconds is not None, "one of the two"
        (deciding,) = [of_speed for of_speed in who.speeds if of_speed.items() <= setting.items()]
        rates = self.cache.get(self._speed(who, deciding))
        assert rates is not None, "measured before"
        way, rate = max(rates.items(), key=lambda item: item[1])
        steps = int(rate * seconds / TOKENS_PER_STEP)
        if steps < 1:
            raise ConfigError(f"--seconds {seconds:g} is too little for {who.name}: give more")
        return way, steps * TOKENS_PER_STEP

    def _speed(self, who: Contestant, setting: Setting) -> Figures:
        return {
            "speed": who.name,
            "vocabulary": self.conditions.dataset.info.vocab_size,
            "identity": who.identity(setting),
            "setting": setting,
            "ways": list(who.ways),
            "threads": torch.get_num_threads(),
        }

    def _say(self, text: str) -> None:
        self.conditions.progress.message(text)
