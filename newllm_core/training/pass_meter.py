"""How far one pass over a text has come."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

# No plugin has a space in its name.
NORM = "gradient norm"


@dataclass
class PassMeter:
    """Counters and sums that the figures of a pass are made of.

    Figures of steps stay on the device until `read` fetches them, all at once.

    Attributes:
        batches: read so far, of so many `tokens`.
        looks: how often the gradient norm of each term was measured.
        norms: what the last look found.
        sums: of each loss term, weighted by tokens.
        last: figures of the last step that was fetched; its gradient norm is `NORM`.
        unread: tokens and figures of every batch since the last `read`.
    """

    batches: int = 0
    tokens: int = 0
    looks: int = 0
    norms: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last: dict[str, float] = {}
        self._looked: list[tuple[int, dict[str, Tensor]]] = []  # at which batch
        self.unread: list[tuple[int, dict[str, Tensor]]] = []

    def count(self, losses: Mapping[str, Tensor], tokens: int, norm: Tensor | None = None) -> None:
        """Add one batch: its losses, and the gradient norm of its step if there was one."""
        self.batches += 1
        self.tokens += tokens
        self.unread.append((tokens, {**losses, NORM: norm} if norm is not None else {**losses}))

    def look(self, norms: Mapping[str, Tensor]) -> None:
        """Keep the gradient norm of each term, of the batch that is counted next."""
        self.looks += 1
        self._looked.append((self.batches, dict(norms)))

    def read(self) -> list[str]:
        """Fetch what is on the device, up to a batch with figures that are not finite; name these.

        That batch and later ones are no longer counted, nor is what was looked at there.
        """
        unread, self.unread = self.unread, []
        flat = [value for _, figures in unread for value in figures.values()]
        values = iter(torch.stack(flat).tolist() if flat else [])
        bad: list[str] = []
        for tokens, figures in unread:
            found = {name: next(values) for name in figures}
            bad = bad or [name for name, value in found.items() if not math.isfinite(value)]
            if bad:
                self.batches -= 1
                self.tokens -= tokens
                continue
            self.last = found
            for name in figures:
                if name != NORM:
                    self.sums[name] = self.sums.get(name, 0.0) + found[name] * tokens
        for batch, norms in self._looked:
            if batch < self.batches:
                self.norms = {name: value.item() for name, value in norms.items()}
            else:
                self.looks -= 1
        self._looked = []
        return bad

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the tokens read."""
        return {name: total / self.tokens for name, total in self.sums.items()}
