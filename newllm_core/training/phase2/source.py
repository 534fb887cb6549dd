"""What an epoch of Phase 2 reads."""

from collections.abc import Iterator
from typing import Protocol

import torch

from newllm_core.checkpoint.run_state import State
from newllm_core.training.phase2.terms import Terms


class Source(Protocol):
    """What an epoch is made of: windows of streams, or batches of frozen contexts.

    Attributes:
        num_steps: of an epoch.
        num_tokens: of an epoch.
        first_reading: whether this is the first epoch.
        candidates: of the next step, see `terms.cross_entropy`.
    """

    num_steps: int
    num_tokens: int
    candidates: int
    first_reading: bool

    def begin_epoch(self) -> None:
        """Start from the beginning of the text."""

    def losses(self, generator: torch.Generator, *, skip: int = 0) -> Iterator[Terms]:
        """Yield the loss of one step of this epoch after another, from step `skip` on."""

    def state(self) -> State:
        """Return what the next step needs."""

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
