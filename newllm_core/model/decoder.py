"""The decoder of reconstruction learning: what a context says about where it came from."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReconstructionDecoder(nn.Module):
    """`Linear(C -> C+E) -> ReLU -> Linear(C+E -> C+E)` of c_t, to equal `[c_{t-1} ; x_t]`."""

    def __init__(self, context_dim: int, embed_dim: int) -> None:
        super().__init__()
        width = context_dim + embed_dim
        self.hidden = nn.Linear(context_dim, width)
        self.output = nn.Linear(width, width)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights from N(0, 1/fan_in), biases 0."""
        for linear in (self.hidden, self.output):
            linear.weight.normal_(0, linear.in_features**-0.5, generator=generator)
            linear.bias.zero_()

    def forward(self, contexts: Tensor) -> Tensor:
        """Reconstruct from `contexts` [..., C]: [..., C+E]."""
        return self.output(F.relu(self.hidden(contexts)))

    def loss(self, contexts: Tensor, *, previous: Tensor, tokens: Tensor) -> Tensor:
        """Mean squared error of the reconstruction; no gradient reaches the targets.

        Args:
            contexts: c_t [..., C].
            previous: c_{t-1} [..., C].
            tokens: x_t [..., E], as it enters the first block.
        """
        target = torch.cat([previous, tokens], dim=-1).detach()
        return F.mse_loss(self(contexts).float(), target.float())
