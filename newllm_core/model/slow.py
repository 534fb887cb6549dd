"""The part of a context that is not learned: averages of what was read that fade slowly.

Shapes: N rows, S slow dimensions, E embed_dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SlowUnits(nn.Module):
    """What a text is about, which the last few tokens do not say.

        s_t = d s_{t-1} + (1 - d) (W x_t + b)

    Source: the slow units of Mikolov et al. 2014 (arXiv 1412.7753), whose W is learned.
    Here W and b are counted (`counted_dims.count_dims`), and never trained.

    Parts of the dimensions, as equal as can be, fade at each of the `decays`.

    Attributes:
        num_dims: S.
        decay: d [S].
        weight: W [S, E].
        bias: b [S].
    """

    decay: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, num_dims: int, embed_dim: int, decays: Sequence[float]) -> None:
        super().__init__()
        self.num_dims = num_dims
        parts = torch.arange(num_dims) * len(decays) // num_dims
        self.register_buffer("decay", torch.tensor(decays)[parts])
        self.register_buffer("weight", torch.zeros(num_dims, embed_dim))
        self.register_buffer("bias", torch.zeros(num_dims))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw W so that units are as large as what is learned, until they are counted."""
        scale_S = ((1 + self.decay) / (1 - self.decay) / self.weight.shape[1]).sqrt()
        self.weight.normal_(generator=generator).mul_(scale_S[:, None])

    def forward(self, slow: Tensor, token: Tensor) -> Tensor:
        """Return s_t [N, S] from s_{t-1} and the token x_t [N, E]."""
        read = nn.functional.linear(token, self.weight, self.bias).to(slow.dtype)
        return read.lerp(slow, self.decay)
