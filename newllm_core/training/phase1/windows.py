"""The walk over a text, window by window.

Shapes: T tokens, C context_dim.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from newllm_core.checkpoint.run_state import State, named
from newllm_core.config import Phase1Config
from newllm_core.objectives.base import SECOND_READING
from newllm_core.runtime.device import to_device
from newllm_core.training.phase1.window import Window


class Windows:
    """The windows of training and validation text that are under way.

    They are on the device of `start_C`, the state before the text. `seed` draws the start of a
    second reading, if the objective `reads` one.

    Attributes:
        number: of the window, from 0.
        count: how many there are.
        train: the window of training text.
        validation: the validation text, always the same; read from the same state as `train`.
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
        self.count = -(-self.num_tokens // config.window_tokens)
        self.go_to(0, start_C)

    def go_to(self, number: int, first_C: Tensor) -> None:
        """Begin window `number` in the state `first_C`; past the last one nothing changes."""
        self.number = number
        if number < self.count:
            begin = number * self.config.window_tokens
            ids = self.train_tokens[begin : begin + self.config.window_tokens]
            self.train = self.window(ids, first_C)
            self.validation = self.window(self.validation_tokens, self.train.first_C)

    def advance(self) -> None:
        """Begin the next window where this one ended."""
        self.go_to(self.number + 1, self.train.previous_TC[-1].clone())

    def state(self, finished: int) -> dict[str, Tensor]:
        """Collect the contexts that the reading after `finished` ones starts from."""
        of_train = named("window", self.train.state(finished))
        of_validation = named("validation", self.validation.state(finished))
        return {"first_C": self.train.first_C} | of_train | of_validation

    def restore(self, number: int, tensors: Mapping[str, Tensor], finished: int) -> None:
        """Take over what `state` gave, in window `number`."""
        state = State(dict(tensors), {})
        self.go_to(number, tensors["first_C"])
        self.train.restore(state.part("window"), finished)
        self.validation.restore(state.part("validation"), finished)

    def window(self, ids: np.ndarray, first_C: Tensor) -> Window:
        """Make a window of token ids [T] that begins in the state `first_C`."""
        tokens_T = to_device(torch.from_numpy(np.array(ids, dtype=np.int64)), self.device)
        first_C = first_C.to(self.device)
        options = self.config.start, self.end_id
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

    def work(self, tokens: int) -> int:
        """Return the tokens to read, at most, for the first `tokens` of the text."""
        first = min(tokens, self.config.window_tokens)
        return first * self.iterations(0) + (tokens - first) * self.iterations(1)
