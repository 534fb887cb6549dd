"""How much a run reads."""

from dataclasses import dataclass


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
        """Take as few passes as `tokens` need; each reads the same part of the text."""
        epochs = -(-tokens // available)
        return Budget(epochs, tokens // epochs)
