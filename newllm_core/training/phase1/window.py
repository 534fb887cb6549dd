"""The piece of text an iteration re-reads, with the contexts of the reading before.

Shapes: T tokens of the window, N tokens of a batch, C context_dim, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from newllm_core.objectives.base import PREVIOUS, SECOND_READING
from newllm_core.objectives.reads import offsets, tokens_at

TWIN = "twin_"


@dataclass
class Window:
    """Tokens and two generations of contexts.

    Attributes:
        first_C: the state before the window: zero, or the last context of the window before.
        start: "zero" (every reading begins at `first_C`) or "carry" (at the last context of the
            reading before).
        end_id: the token that closes a document; -1 where there is none.
        twin: the same tokens, read from another start, where an objective wants a second reading.
        is_twin: whether this is one.
        readings: readings finished.
        previous_TC: contexts of the reading before.
        current_TC: contexts of the reading under way.
    """

    tokens_T: Tensor
    first_C: Tensor
    start: str
    end_id: int = -1
    twin: "Window | None" = None
    is_twin: bool = False
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
        """Return the state in which this reading begins."""
        carried = self.start == "carry" and self.readings > 0
        return self.previous_TC[-1] if carried else self.first_C

    def with_twin(self, generator: torch.Generator) -> list[tuple["Window", torch.Generator]]:
        """List this window and its twin, if any, each with a generator in the same state."""
        if self.twin is None:
            return [(self, generator)]
        same = torch.Generator()
        same.set_state(generator.get_state())
        return [(self, generator), (self.twin, same)]

    def read(
        self, reads: Sequence[str], positions_n: Tensor, second_nC: Tensor | None
    ) -> dict[str, Tensor]:
        """Collect what an objective reads of the tokens at some positions [n].

        What only the model can supply is left out; `second_nC` is of the second reading, if any.
        """
        found = {
            name: tokens_at(self.tokens_T.__getitem__, len(self), positions_n, offset, self.end_id)
            for name, offset in offsets(reads).items()
        }
        if PREVIOUS in reads:
            found[PREVIOUS] = self.previous_TC[positions_n]
        if second_nC is not None:
            found[SECOND_READING] = second_nC
        return found

    def store(self, positions_N: Tensor, contexts_NC: Tensor) -> None:
        """Keep the new contexts of some positions."""
        self.current_TC[positions_N] = contexts_NC

    def finish_reading(self) -> None:
        """Make the reading under way the one before."""
        self.previous_TC, self.current_TC = self.current_TC, self.previous_TC
        self.readings += 1
        if self.twin is not None:
            self.twin.finish_reading()

    def state(self, readings: int) -> dict[str, Tensor]:
        """Collect what the reading after `readings` finished ones starts from, finished or not."""
        generations = self.previous_TC, self.current_TC
        if self.readings != readings:
            generations = generations[::-1]
        found = dict(zip(("previous_TC", "current_TC"), generations, strict=True))
        if self.twin is not None:
            found |= {TWIN + name: value for name, value in self.twin.state(readings).items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor], readings: int) -> None:
        """Take over what `state` gave."""
        self.readings = readings
        self.previous_TC.copy_(tensors["previous_TC"])
        self.current_TC.copy_(tensors["current_TC"])
        if self.twin is not None:
            of_twin = {n.removeprefix(TWIN): t for n, t in tensors.items() if n.startswith(TWIN)}
            self.twin.restore(of_twin, readings)
