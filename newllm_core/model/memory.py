"""The part of a context that is not learned: averages that fade slowly, and the last few tokens.

Shapes: N rows, E embed_dim, S slow dimensions, R dimensions of the delay line, M = S + R.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class LinearMemory(nn.Module):
    """What a text is about, and what its last K tokens were.

        m_t = A m_{t-1} + B x_t + b

    As it is made, b is 0 and m is (s, r), slow units and a delay line:

        s_t = d s_{t-1} + (1 - d) V x_t        r_t = (W x_t, r_{t-1} without its last R / K numbers)

    Counted (`count_memory.count_memory`), it is the same in other coordinates: their mean is 0 in
    training text, and what averages say is mostly what the delay line does not. Nothing of it is
    ever trained.

    Sources: slow units of Mikolov et al. 2014 (arXiv 1412.7753), whose V is learned; delays of
    Waibel et al. 1989 (time-delay networks).

    Attributes:
        decay: d of every slow dimension [S]; parts of them, as equal as can be, have each decay.
        num_read: R / K, numbers of each token that the delay line holds.
        transition: A [M, M].
        read: B [M, E].
        bias: b [M].
    """

    transition: Tensor
    read: Tensor
    bias: Tensor

    def __init__(
        self,
        embed_dim: int,
        *,
        slow_dims: int,
        slow_decays: Sequence[float],
        delay_dims: int,
        delay_tokens: int,
    ) -> None:
        super().__init__()
        size = slow_dims + delay_dims
        self.decay = [
            slow_decays[number * len(slow_decays) // slow_dims] for number in range(slow_dims)
        ]
        self.num_read = delay_dims // delay_tokens
        self.register_buffer("transition", torch.zeros(size, size))
        self.register_buffer("read", torch.zeros(size, embed_dim))
        self.register_buffer("bias", torch.zeros(size))

    def groups(self) -> Iterator[tuple[float, slice]]:
        """Yield the decay and the dimensions of every group that reads tokens."""
        slow_dims = len(self.decay)
        for decay in dict.fromkeys(self.decay):
            first = self.decay.index(decay)
            yield decay, slice(first, first + self.decay.count(decay))
        if self.num_read:
            yield 0.0, slice(slow_dims, slow_dims + self.num_read)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw V and W so that numbers are as large as what is learned, until they are counted."""
        size, embed_dim = self.read.shape
        slow_dims = len(self.decay)
        decay_S = torch.tensor(self.decay)
        self.transition.zero_()
        self.transition.diagonal()[:slow_dims] = decay_S
        if self.num_read:
            moved = torch.arange(slow_dims + self.num_read, size)
            self.transition[moved, moved - self.num_read] = 1
        self.read.zero_()
        for decay, rows in self.groups():
            drawn = torch.randn(rows.stop - rows.start, embed_dim, generator=generator)
            self.read[rows] = drawn * ((1 - decay**2) / embed_dim) ** 0.5

    def forward(self, memory: Tensor, token: Tensor) -> Tensor:
        """Return m_t [N, M] from m_{t-1} and the token x_t [N, E]."""
        read = nn.functional.linear(token, self.read, self.bias).to(memory.dtype)
        # Rounded again and again, what is kept would fade.
        with torch.autocast(memory.device.type, enabled=False):
            return nn.functional.linear(memory, self.transition) + read
