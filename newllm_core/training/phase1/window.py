"""The piece of text an iteration re-reads, with the contexts of the reading before.

Shapes: T tokens of the window, N tokens of a batch, C context_dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Window:
    """Tokens and two generations of contexts.

    Attributes:
        tokens_T: token ids.
        first_C: the state before the window: zero, or the last context of the window before.
        start: "zero" (every reading begins at `first_C`) or "carry" (at the last context of the
            reading before).
        previous_TC: contexts of the reading before.
        current_TC: contexts of the reading under way.
        readings: readings finished.
    """

    tokens_T: Tensor
    first_C: Tensor
    start: str
    readings: int = 0
    previous_TC: Tensor = field(init=False)
    current_TC: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape = len(self.tokens_T), len(self.first_C)
        self.previous_TC = self.first_C.expand(shape).clone()
        self.current_TC = torch.zeros_like(self.previous_TC)

    def __len__(self) -> int:
        return len(self.tokens_T)

    @property
    def begin_C(self) -> Tensor:
        """The state in which this reading begins."""
        carried = self.start == "carry" and self.readings > 0
        return self.previous_TC[-1] if carried else self.first_C

    def store(self, positions_N: Tensor, contexts_NC: Tensor) -> None:
        """Keep the new contexts of some positions."""
        self.current_TC[positions_N] = contexts_NC

    def finish_reading(self) -> None:
        """Make the reading under way the one before."""
        self.previous_TC, self.current_TC = self.current_TC, self.previous_TC
        self.readings += 1

    def state(self, readings: int) -> dict[str, Tensor]:
        """What the reading after `readings` finished ones starts from, be it finished or not."""
        generations = self.previous_TC, self.current_TC
        previous_TC, current_TC = generations if self.readings == readings else generations[::-1]
        return {"previous_TC": previous_TC, "current_TC": current_TC}

    def restore(self, tensors: Mapping[str, Tensor], readings: int) -> None:
        """Take over what `state` gave."""
        self.readings = readings
        self.previous_TC.copy_(tensors["previous_TC"])
        self.current_TC.copy_(tensors["current_TC"])
