"""From a context to the next token.

Shapes: C context_dim, E embed_dim, H hidden units, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HiddenLayer(nn.Module):
    """A projection C -> E that is not linear: `skip(c) + output(GELU(hidden(c)))`.

    What only tells a token in combination with something else (which is what a context that was
    not trained for the next token holds) no linear map can read.
    """

    def __init__(self, context_dim: int, hidden_dim: int, width: int) -> None:
        super().__init__()
        self.skip = nn.Linear(context_dim, width)
        self.hidden = nn.Linear(context_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, width)

    def forward(self, context: Tensor) -> Tensor:
        """Return [..., E] from contexts [..., C]."""
        return self.skip(context) + self.output(F.gelu(self.hidden(context)))


class TokenHead(nn.Linear):
    """Logits of the next token: linear, C -> V, or through a projection, C -> E -> V.

    Tied to the embeddings it needs one (Press & Wolf 2017, arXiv 1608.05859): a context need not
    have the width of what the vocabulary, most of a small model, is stored in, nor resemble the
    embedding of the token that follows.

    Attributes:
        projection: C -> E, `width`, with H `hidden_dim` units if these are not 0; None without one.
        gate: how much of a mixture with `Bigrams` is theirs, C -> 1; None unless `gated`.
    """

    def __init__(
        self,
        context_dim: int,
        vocab_size: int,
        width: int | None = None,
        hidden_dim: int = 0,
        *,
        gated: bool = False,
    ) -> None:
        super().__init__(width or context_dim, vocab_size)
        self.projection: nn.Module | None = None
        if width is not None and hidden_dim:
            self.projection = HiddenLayer(context_dim, hidden_dim, width)
        elif width is not None:
            self.projection = nn.Linear(context_dim, width)
        self.gate = nn.Linear(context_dim, 1) if gated else None

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator, *, tied: bool) -> None:
        """Draw `weight` from N(0, std²) unless tied, of the projection N(0, 1/inputs); others 0."""
        if not tied:
            self.weight.normal_(0, std, generator=generator)
        self.bias.zero_()
        projection = () if self.projection is None else self.projection.parameters()
        for parameter in projection:
            if parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.zero_()
        for parameter in () if self.gate is None else self.gate.parameters():
            parameter.zero_()

    def project(self, context: Tensor) -> Tensor:
        """Return what `weight` is multiplied with, from contexts [..., C]."""
        if self.projection is None:
            return context
        projected: Tensor = self.projection(context)
        return projected

    def forward(self, context: Tensor) -> Tensor:
        """Return logits [..., V] from contexts [..., C], without any bigrams."""
        return F.linear(self.project(context), self.weight, self.bias)
