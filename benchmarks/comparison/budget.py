"""How much a run reads, and what it starts with."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """Passes over the beginning of the training text.

    Attributes:
        epochs: passes.
        tokens: read in each.
    """

    epochs: int
    tokens: int

    @staticmethod
    def of(tokens: int, available: int) -> "Budget":
        """As few passes as `tokens` take; each reads the same part of the text."""
        epochs = -(-tokens // available)
        return Budget(epochs, tokens // epochs)


@dataclass(frozen=True)
class Setting:
    """What is tuned.

    Attributes:
        values: "learning_rate" and "dropout", or "order" of n-grams.
    """

    values: tuple[tuple[str, float], ...]

    @staticmethod
    def make(**values: float) -> "Setting":
        """From keywords."""
        return Setting(tuple(sorted(values.items())))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(self.values)

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.values)
