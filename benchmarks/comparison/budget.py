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
        """Take the number of passes nearest to `tokens`, and no more than these in all.

        Each reads the same part of the text. What is left of a budget beyond whole passes is not
        used where one pass more would take a part of the text from all of them.
        """
        epochs = max(1, round(tokens / available))
        return Budget(epochs, min(available, tokens // epochs))
