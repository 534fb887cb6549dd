"""From a context to the next token, by one head or by several together.

Shapes: C context_dim, E embed_dim, H hidden units, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.errors import ConfigError

Value = TypeVar("Value", float, Tensor)
# What training does to values of which only a part is to be relied on.
Drop = Callable[[Tensor], Tensor]


class HiddenLayer(nn.Module):
    """A projection C -> E that is not linear: `skip(c) + output(GELU(hidden(c)) value(c))`.

    Contexts that were not trained for the next token often tell it only by two things together
    (this token before, and that topic), which no linear map can read. The product is that of GEGLU
    (Shazeer 2020, arXiv 2002.05202).
    """

    def __init__(self, context_dim: int, hidden_dim: int, width: int) -> None:
        super().__init__()
        self.skip = nn.Linear(context_dim, width)
        self.hidden = nn.Linear(context_dim, hidden_dim)
        self.value = nn.Linear(context_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, width)

    def forward(self, context: Tensor, drop: Drop | None = None) -> Tensor:
        """Return [..., E] from contexts [..., C]; training may `drop` some of it all."""
        if drop is not None:
            context = drop(context)
        units = F.gelu(self.hidden(context)) * self.value(context)
        return self.skip(context) + self.output(units if drop is None else drop(units))


class TokenHead(nn.Linear):
    """Logits of the next token: linear, C -> V, or through a projection, C -> E -> V.

    A head whose `weight` is the table of embeddings (Press & Wolf 2017, arXiv 1608.05859) needs the
    projection: a context need not be as wide as an embedding, nor resemble that of the token that
    follows.

    Attributes:
        last_token: what is added to a context for the token that was read last [V, C]; None unless
            the head `reads_token`. A context that was not trained for the next token says which
            token this was, and not what follows from it.
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
        reads_token: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__(width or context_dim, vocab_size)
        self.last_token: nn.Embedding | None = None
        if reads_token:
            zeros_VC = torch.zeros(vocab_size, context_dim)
            self.last_token = nn.Embedding.from_pretrained(zeros_VC, freeze=False)
        self.projection: nn.Module | None = None
        if width is not None and hidden_dim:
            self.projection = HiddenLayer(context_dim, hidden_dim, width)
        elif width is not None:
            self.projection = nn.Linear(context_dim, width)
        self.gate = nn.Linear(context_dim, 1) if gated else None

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator, *, tied: bool) -> None:
        """Draw `weight` from N(0, std²) unless tied, of the projection N(0, 1/inputs); others 0."""
        for name, parameter in self.named_parameters():
            if name == "weight":
                if not tied:
                    parameter.normal_(0, std, generator=generator)
            elif name.startswith("projection.") and parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.zero_()

    def project(
        self, context: Tensor, last: Tensor | None = None, drop: Drop | None = None
    ) -> Tensor:
        """Return what `weight` is multiplied with, from contexts [..., C].

        `last` [...] are the tokens read last; None before any was. Training may `drop` a part of
        what a hidden layer reads and of its units.
        """
        if self.last_token is not None and last is not None:
            context = context + self.last_token(last)
        if self.projection is None:
            return context
        if isinstance(self.projection, HiddenLayer):
            return self.projection(context, drop)
        return self.projection(context)

    def gate_of(self, context: Tensor) -> Tensor:
        """Return how much of the mixture is the bigrams' [..., 1], a logit, from contexts."""
        assert self.gate is not None, "this head is mixed with nothing"
        return cast(Tensor, self.gate(context))

    def forward(self, context: Tensor, last: Tensor | None = None) -> Tensor:
        """Return logits [..., V] from contexts [..., C], without any bigrams; see `project`."""
        return F.linear(self.project(context, last), self.weight, self.bias)


def head_weights(configured: Sequence[float], num_heads: int) -> list[float]:
    """Return a weight per head, first block first.

    As configured where the counts agree, else interpolated linearly with both ends kept. A single
    head reads the last block and gets the last weight, which cancels in the mean.

    Raises:
        ConfigError: every weight of this many heads is zero.
    """
    # linspace of a single number returns where it begins: the last weight.
    places = np.linspace(len(configured) - 1, 0, num_heads)[::-1]
    weights: list[float] = np.interp(places, range(len(configured)), configured).tolist()
    if not sum(weights) > 0:
        raise ConfigError(
            f"phase2.head_weights leaves no weight above zero for {num_heads} head(s)"
        )
    return weights


def weighted_mean(values: Sequence[Value], weights: Sequence[float]) -> Value:
    """Return `Σ w_k v_k / Σ w_k` of numbers or tensors v, by weights w."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total / sum(weights)
