"""The part of a context that is not learned: the last few tokens, in the order they were read.

Shapes: N rows, F numbers kept of a token, K tokens kept, E embed_dim.
"""

import torch
from torch import Tensor, nn


class DelayLine(nn.Module):
    """What the last K tokens were.

        r_t = (W x_t + b, r_{t-1} without its last F numbers)

    Source: the delays of Waibel et al. 1989 (time-delay networks), of F K numbers in all.
    Here W and b are counted (`counted_dims.count_dims`), and never trained.

    Attributes:
        num_dims: F K.
        weight: W [F, E].
        bias: b [F].
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, num_dims: int, embed_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.num_dims = num_dims
        self.register_buffer("weight", torch.zeros(num_dims // num_tokens, embed_dim))
        self.register_buffer("bias", torch.zeros(num_dims // num_tokens))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw W so that numbers are as large as what is learned, until they are counted."""
        self.weight.normal_(0, self.weight.shape[1] ** -0.5, generator=generator)

    def forward(self, kept: Tensor, token: Tensor) -> Tensor:
        """Return r_t [N, F K] from r_{t-1} and the token x_t [N, E]."""
        read = nn.functional.linear(token, self.weight, self.bias).to(kept.dtype)
        return torch.cat([read, kept[..., : -len(self.bias)]], -1)
