"""What a tracker is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path


class Tracker(ABC):
    """Shows the figures of one run: what its `.metrics.jsonl` holds.

    It is made when the run begins, also when that goes on from a saved state: then it is given
    the figures from before again, and shows one run with all of them.

    Args:
        checkpoint: what the run will write.
    """

    @classmethod  # noqa: B027 - what needs nothing leaves it
    def require(cls) -> None:
        """Raise `ConfigError` if something it needs is not installed."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    @abstractmethod
    def write(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """Take the numbers of one line.

        Args:
            event: what the line is about, such as "epoch".
            step: the line among those of its event; it may leave numbers out, and never falls.
            figures: by `event/place/of/the/number`.
        """

    def close(self) -> None:  # noqa: B027 - nor to finish
        """Finish: no figures follow."""
