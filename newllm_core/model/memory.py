"""The part of a context that is not learned: averages that fade slowly, and the last few tokens.

Shapes: N rows, E embed_dim, S slow dimensions, R dimensions of the delay line, M = S + R.
"""

import torch
from torch import Tensor, nn

from newllm_core.config import ModelConfig


class LinearMemory(nn.Module):
    """What a text is about, and what its last K tokens were.

        m_t = A m_{t-1} + B x_t + b

    As it is made, b is 0 and m is (s, r), slow units and a delay line:

        s_t = d s_{t-1} + (1 - d) V x_t        r_t = (W x_t, r_{t-1} without its last R / K numbers)

    `count_memory.count_memory` then changes to coordinates whose mean is 0 in training text and
    which correlate less: what comes from averages hardly repeats what the delay line says. No
    gradient ever changes A, B or b.

    Sources: slow units of Mikolov et al. 2014 (arXiv 1412.7753), whose V is learned; delays of
    Waibel et al. 1989 (time-delay networks).

    Attributes:
        transition: A [M, M].
        read: B [M, E].
        bias: b [M].
    """

    transition: Tensor
    read: Tensor
    bias: Tensor

    def __init__(self, num_dims: int, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("transition", torch.zeros(num_dims, num_dims))
        self.register_buffer("read", torch.zeros(num_dims, embed_dim))
        self.register_buffer("bias", torch.zeros(num_dims))

    def initialise(self, config: ModelConfig, generator: torch.Generator) -> None:
        """Draw V and W so that numbers are as large as what is learned, until they are counted."""
        for decay, rows in memory_groups(config):
            drawn = torch.randn(self.read[rows].shape, generator=generator)
            self.read[rows] = drawn * ((1 - decay**2) / config.embed_dim) ** 0.5
            self.transition.diagonal()[rows] = decay
        if config.delay_dims:
            moved = torch.arange(config.slow_dims + config.delay_numbers, config.memory_dims)
            self.transition[moved, moved - config.delay_numbers] = 1

    def forward(self, memory: Tensor, token: Tensor) -> Tensor:
        """Return m_t [N, M] from m_{t-1} and the token x_t [N, E]."""
        read = nn.functional.linear(token, self.read, self.bias).to(memory.dtype)
        # Products of bfloat16 would round the whole memory anew at every token.
        with torch.autocast(memory.device.type, enabled=False):
            return nn.functional.linear(memory, self.transition) + read


def memory_groups(config: ModelConfig) -> list[tuple[float, slice]]:
    """Return the decay and the dimensions of M of every group that reads tokens.

    Slow dimensions are divided among the decays, as equally as can be; of a delay line the first
    R / K dimensions read, at decay 0.
    """
    slow, decays = config.slow_dims, config.slow_decays
    bounds = [-(-number * slow // len(decays)) for number in range(len(decays) + 1)]
    groups = [(d, slice(*bounds[n : n + 2])) for n, d in enumerate(decays)]
    groups.append((0.0, slice(slow, slow + config.delay_numbers)))
    return [(decay, rows) for decay, rows in groups if rows.start < rows.stop]
