"""Any `step(state, token_ids) -> state` as a recurrence.

Shapes: N rows, B streams, P passages, T tokens, C numbers in a state, K numbers kept of it.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.nest import Layout
from newllm_core.analysis.recurrence import (
    DIFFERENCES,
    Recurrence,
    difference_product,
    exact_product,
)
from newllm_core.analysis.sketch import Sketch
from newllm_core.analysis.summary import gaussian_like

Step = Callable[[Any, Tensor], Any]

# Longer states are kept as sketches: the work of a rank grows with the cube of this.
LONGEST_EXACT = 4096
# A derivative that says something else than a difference is none: a step that leaves torch, or
# cuts its gradient on purpose, has gradients without meaning.
LARGEST_DISAGREEMENT = 0.05
# Of differences that take the place of a derivative that could be had.
SMALL_ERROR = 1e-3
# Steps without an input before anything counts, and how far apart passages begin, relatively.
SETTLED_AFTER = 512
APART = 1e-6


class Stepped(Recurrence):
    """The recurrence of a step.

    Args:
        step: reads one id [B] each into states of batch B.
        start: the state before any token, batch one: a tensor or a nest of tensors.
        seed: of the sketch and of the check of its derivative.

    Raises:
        ConfigError: `start` cannot be a state.
    """

    def __init__(self, step: Step, start: Any, *, seed: int = 0) -> None:  # noqa: ANN401 - a nest
        self.step = step
        self.layout = layout = Layout(start)
        self.context_dim = layout.size
        self.largest_weight = self.context_dim**2
        self._start_1C = layout.flatten(start).detach()
        self._seed = seed
        self._is_checked = False
        is_long = layout.size > LONGEST_EXACT
        self._sketch = Sketch(layout.size, seed, layout.device, layout.dtype) if is_long else None

    @property
    def is_projected(self) -> bool:
        """Say whether states are so long that sketches are kept of them."""
        return self._sketch is not None

    def described(self) -> dict[str, Any]:
        """Return what a state is made of: `dimensions`, and `parts` with the numbers in each."""
        parts = dict(zip(self.layout.names, self.layout.sizes, strict=True))
        return {"dimensions": self.context_dim, "parts": parts, "is_sketched": self.is_projected}

    def start(self, num_streams: int) -> Tensor:
        """Return the start state of every stream [B, C]."""
        return self._start_1C.repeat(num_streams, 1)

    def starts(self, passages_PT: Tensor) -> Tensor:
        """Return the start state [P, C]; without an input, where a network is after a while.

        From one start and one input, all passages would be one passage: they begin a little apart,
        which chaos makes independent and nothing else keeps.
        """
        if len(torch.unique(passages_PT)) > 1:
            return self.start(len(passages_PT))
        tokens_P = passages_PT[:, 0]
        context_1C = self.start(1)
        for _ in range(SETTLED_AFTER):
            context_1C = self.read(context_1C, tokens_P[:1])
        context_PC = context_1C.repeat(len(tokens_P), 1)
        # Shrunk, not shifted: most ranges that a state must stay in reach to zero.
        context_PC = context_PC * (1 - APART * gaussian_like(context_PC, self._seed).abs())
        for _ in range(SETTLED_AFTER):
            context_PC = self.read(context_PC, tokens_P)
        return context_PC

    def read(self, context_NC: Tensor, tokens_N: Tensor) -> Tensor:
        """Return the states after the step [N, C]."""
        return self.layout.flatten(self.step(self.layout.nested(context_NC), tokens_N))

    def kept(self, context_NC: Tensor) -> Tensor:
        """Return the states, or sketches of them [N, K]."""
        return self._sketch(context_NC) if self._sketch else context_NC

    def push_forward(
        self, context_NC: Tensor, tokens_N: Tensor, vector_NC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the states after a token, and the Jacobian of that times `vector_NC`."""
        if not self._is_checked:
            self._is_checked = True
            self._check_derivative(context_NC[:1], tokens_N[:1])
        return super().push_forward(context_NC, tokens_N, vector_NC)

    def _check_derivative(self, context_1C: Tensor, tokens_1: Tensor) -> None:
        """Choose differences where the step's gradients are not its derivative."""

        def update(context_1C: Tensor) -> Tensor:
            return self.read(context_1C, tokens_1)

        vector_1C = gaussian_like(context_1C, self._seed)
        near, far = (difference_product(update, context_1C, vector_1C, scale=s) for s in (1, 2))
        size = float(near.norm().clamp(min=1e-30))
        error = float((far - near).norm()) / size / 3
        # Reverse passes over long states take five times as long, and their memory.
        apart = math.inf
        if not (self.is_projected and error < SMALL_ERROR):
            # numpy, writing in place, …
            with suppress(RuntimeError, NotImplementedError, TypeError):
                _, exact = exact_product(update, context_1C, vector_1C)
                apart = float((exact - near).norm()) / size
        # Where the step is so curved that two differences disagree, they are no judge.
        if apart > max(LARGEST_DISAGREEMENT, 6 * error):
            self.derivative, self.derivative_error = DIFFERENCES, error
