"""From a context to the next token.

Shapes: C context_dim, E embed_dim, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenHead(nn.Linear):
    """Logits of the next token, a linear C -> V.

    Tied to the embeddings it is `C -> E -> V` (Press & Wolf 2017, arXiv 1608.05859): a context need
    not have the width of what the vocabulary, most of a small model, is stored in, nor resemble the
    embedding of the token that follows.

    Args:
        context_dim: C.
        vocab_size: V.
        tied_dim: E of the embeddings that `weight` will be tied to; None for a weight of its own.

    Attributes:
        projection: C -> E of a tied head, else None.
    """

    def __init__(self, context_dim: int, vocab_size: int, tied_dim: int | None = None) -> None:
        super().__init__(tied_dim or context_dim, vocab_size)
        self.projection = None if tied_dim is None else nn.Linear(context_dim, tied_dim)

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator, *, tied: bool) -> None:
        """Draw `weight` from N(0, std²) unless tied, `projection` from N(0, 1/C); biases 0."""
        if not tied:
            self.weight.normal_(0, std, generator=generator)
        self.bias.zero_()
        if self.projection is not None:
            std = self.projection.in_features**-0.5
            self.projection.weight.normal_(0, std, generator=generator)
            self.projection.bias.zero_()

    def project(self, context: Tensor) -> Tensor:
        """Return what `weight` is multiplied with, from contexts [..., C]."""
        return context if self.projection is None else self.projection(context)

    def forward(self, context: Tensor) -> Tensor:
        """Return logits [..., V] from contexts [..., C]."""
        return F.linear(self.project(context), self.weight, self.bias)
