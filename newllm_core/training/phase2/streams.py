"""A text as contiguous streams that are read in lock-step, a window at a time.

Every epoch begins its streams elsewhere, so that a token is not always as near to the beginning of
a window; the last stream goes on at the beginning of the text.

Shapes: B streams, T tokens of a window.
"""

import math
from collections.abc import Iterator

import numpy as np

from newllm_core.config import Phase2Config


def beginning(epoch: int, length: int, window: int) -> int:
    """Return where in the text the first of streams of `length` begins in an epoch, from 0.

    Multiples of the golden ratio, modulo one, are spread as evenly as can be, however many: such a
    share of the windows is left out, and of one more window.
    """
    share = epoch * (math.sqrt(5) - 1) / 2 % 1
    return (round(share * length) // window * window + round(share * window)) % length


class Streams:
    """Streams of the first `text_length` tokens of a text.

    Attributes:
        count: of streams; a short text makes fewer rather than streams shorter than a window.
        length: of each, in tokens.
        num_steps: windows of an epoch.
        num_tokens: tokens of an epoch: all but the few that do not fill every stream.
    """

    def __init__(self, text_length: int, config: Phase2Config) -> None:
        self._text_length, self._window = text_length, config.bptt
        self.count = max(1, min(config.num_streams, text_length // self._window))
        self.length = text_length // self.count
        self.num_steps = -(-self.length // self._window)
        self.num_tokens = self.count * self.length

    def windows(self, epoch: int, *, skip: int = 0) -> Iterator[np.ndarray]:
        """Yield places [B, T] in the text from window `skip` of an epoch on; epochs are from 0."""
        first = beginning(epoch, self.length, self._window)
        starts_B1 = first + np.arange(self.count)[:, None] * self.length
        for begin in range(skip * self._window, self.length, self._window):
            steps = np.arange(begin, min(begin + self._window, self.length))
            yield (starts_B1 + steps) % self._text_length
