"""How far one pass over a text has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class PassMeter:
    """Counters and sums that the figures of a pass are made of.

    Attributes:
        batches: read so far.
        tokens: read so far.
        looks: how often the gradient norm of each term was measured.
        norms: what the last look found.
        sums: of each loss term, weighted by tokens.
    """

    batches: int = 0
    tokens: int = 0
    looks: int = 0
    norms: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def count(self, losses: Mapping[str, float], tokens: int) -> None:
        """Add one batch."""
        self.batches += 1
        self.tokens += tokens
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * tokens

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the tokens read."""
        return {name: total / self.tokens for name, total in self.sums.items()}
