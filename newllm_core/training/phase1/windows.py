"""The walk over a text, window by window.

Shapes: T tokens, N tokens of a batch, n of this process, C context_dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from newllm_core.checkpoint.run_state import State, named
from newllm_core.config import Phase1Config
from newllm_core.objectives.base import PREVIOUS, SECOND_READING, offsets, tokens_at
from newllm_core.runtime.device import to_device

TWIN = "twin_"
# A window is made of parts of about so many tokens, from all over the text.
PART_TOKENS = 2048


@dataclass
class Window:
    """Tokens and two generations of contexts.

    Attributes:
        first_C: the state before the window: zero, or the last context of the window before.
        start: "zero" (every reading begins at `first_C`) or "carry" (at the last context of the
            reading before).
        end_id: the token that closes a document; -1 where there is none.
        refreshes: a new context takes the place of the one from the reading before at once.
        twin: the same tokens, read from another start, where an objective wants a second reading;
            it `is_twin`.
        readings: readings finished.
        previous_TC: contexts of the reading before; `first_C` while there is none.
        current_TC: contexts of the reading under way.
    """

    tokens_T: Tensor
    first_C: Tensor
    start: str
    end_id: int = -1
    refreshes: bool = False
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
        return self.previous_TC[-1] if self.start == "carry" else self.first_C

    def with_twin(self, generator: torch.Generator) -> list[tuple["Window", torch.Generator]]:
        """List this window and its twin, if any, each with a generator in the same state."""
        if self.twin is None:
            return [(self, generator)]
        return [(self, generator), (self.twin, generator.clone_state())]

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
            found[PREVIOUS] = self.previous_TC.index_select(0, positions_n)
        if second_nC is not None:
            found[SECOND_READING] = second_nC
        return found

    def store(
        self, positions_N: Tensor, contexts_NC: Tensor, *, failed: Tensor | None = None
    ) -> None:
        """Keep the new contexts of some positions.

        Where the step that was made with them `failed`, a scalar, the reading may be resumed from
        before it: contexts of the reading before stay as they are.
        """
        self.current_TC[positions_N] = contexts_NC
        if self.refreshes:
            if failed is not None:
                before_NC = self.previous_TC.index_select(0, positions_N)
                contexts_NC = torch.where(failed.bool(), before_NC, contexts_NC)
            self.previous_TC[positions_N] = contexts_NC

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


class Windows:
    """The windows of training and validation text that are under way: `number` of `count`.

    A text of several windows is divided into stretches, and every window takes the next part of
    each: a text changes its subject, and an update that saw one subject last would fit that one.

    They are on the device of `start_C`, the state before the text, and `validation`, always the
    same text, is read from the same state as `train`. `seed` draws the start of a second reading,
    if the objective `reads` one.
    """

    def __init__(
        self,
        tokens: Mapping[str, np.ndarray],
        config: Phase1Config,
        *,
        start_C: Tensor,
        end_id: int,
        reads: Sequence[str],
        seed: int,
    ) -> None:
        self.config = config
        self.train_tokens = tokens["train"][: config.max_tokens]
        self.validation_tokens = tokens["validation"][: config.convergence_tokens]
        self.device = start_C.device
        self.end_id = end_id
        self.has_twins = SECOND_READING in reads
        self.seed = seed
        self.num_tokens = len(self.train_tokens)
        num_parts = max(1, config.window_tokens // PART_TOKENS)
        if self.num_tokens <= config.window_tokens:
            num_parts = 1
        self.bounds = np.arange(num_parts + 1) * self.num_tokens // num_parts
        longest = int(np.diff(self.bounds).max())
        self.count = -(-longest // (config.window_tokens // num_parts))
        # All alike: a last window of a few tokens could only unlearn.
        self.part_tokens = -(-longest // max(1, self.count))
        self.go_to(0, start_C)

    def go_to(self, number: int, first_C: Tensor) -> None:
        """Begin window `number` in the state `first_C`; past the last one nothing changes."""
        self.number = number
        if number < self.count:
            begins = self.bounds[:-1] + number * self.part_tokens
            ends = np.minimum(begins + self.part_tokens, self.bounds[1:])
            parts = [self.train_tokens[slice(*at)] for at in zip(begins, ends, strict=True)]
            # Later windows are trained on in one reading. With contexts from before it, nothing
            # would show what its own steps add up to from token to token: all contexts drift the
            # same way.
            self.train = self.window(np.concatenate(parts), first_C, refreshes=number > 0)
            self.validation = self.window(self.validation_tokens, self.train.first_C)

    def advance(self) -> None:
        """Begin the next window where this one ended."""
        self.go_to(self.number + 1, self.train.previous_TC[-1].clone())

    def state(self, finished: int) -> dict[str, Tensor]:
        """Collect the contexts that the reading after `finished` ones starts from."""
        of_train = named("window", self.train.state(finished))
        of_validation = named("validation", self.validation.state(finished))
        return {"first_C": self.train.first_C} | of_train | of_validation

    def restore(self, number: int, state: State, finished: int) -> None:
        """Take over what `state` gave, in window `number`, or past the last one."""
        if not 0 <= number <= self.count:
            raise ValueError(f"there is no window {number} of {self.count}")
        self.go_to(min(number, self.count - 1), state.tensors["first_C"])
        self.train.restore(state.part("window"), finished)
        self.validation.restore(state.part("validation"), finished)
        self.number = number

    def window(self, ids: np.ndarray, first_C: Tensor, *, refreshes: bool = False) -> Window:
        """Make a window of token ids [T] that begins in the state `first_C`."""
        tokens_T = to_device(torch.from_numpy(np.array(ids, dtype=np.int64)), self.device)
        first_C = first_C.to(self.device)
        options = self.config.start, self.end_id, refreshes
        twin = None
        if self.has_twins:
            twin = Window(tokens_T, self._other_start(first_C), *options, is_twin=True)
        return Window(tokens_T, first_C, *options, twin)

    def _other_start(self, first_C: Tensor) -> Tensor:
        """Draw a state of norm near √C, which is that of normalised contexts."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.number)
        drawn_C = torch.randn(first_C.shape, generator=generator, dtype=first_C.dtype)
        return drawn_C.to(self.device)

    def iterations(self, number: int | None = None) -> int:
        """Return the iterations of a window, at most. Later ones are new text, not a new task."""
        most = self.config.max_iterations
        is_first = (self.number if number is None else number) == 0
        return most if is_first else min(most, self.config.later_iterations)

    def place(self, iteration: int) -> str:
        """Name an iteration of this window."""
        window = f"window {self.number + 1}/{self.count}, " if self.count > 1 else ""
        return f"{window}iteration {iteration}/{self.iterations()}"

    def tokens_before(self, number: int) -> int:
        """Count the tokens of the windows before window `number`."""
        return int(np.minimum(np.diff(self.bounds), number * self.part_tokens).sum())

    def work(self, tokens: int) -> int:
        """Return the tokens to read, at most, for the first `tokens` of the text."""
        first = min(tokens, self.tokens_before(1))
        return first * self.iterations(0) + (tokens - first) * self.iterations(1)
