"""The context as something that tokens can be told from: those read last, and those to come.

Shapes: N rows, K lags, U candidates, C context_dim, E embed_dim, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config.option import option
from newllm_core.objectives.base import EMBEDDING_MATRIX, NO_TOKEN, TOKENS_AT, Objective
from newllm_core.runtime.precision import at_least_float32


@dataclass(frozen=True)
class TokensOptions:
    """Options of `Tokens`."""

    past: int = option(
        8, "Tokens to be told from a context, the one just read included.", low=1, high=256
    )
    future: int = option(0, "Tokens to come that are to be guessed too.", low=0, high=256)
    context_weight: float = option(
        0.15, "Weight of c_{t-1}, where tokens have 1: more remembers longer.", low=0
    )
    temperature: float = option(0.1, "Of the choice among candidates.", low=1e-3, high=10)


class Tokens(Objective):
    """Cross-entropy of the tokens around a place, and the error of the context before.

        loss = mean CE_k / log U + w |d(c_t) - c_{t-1}|² / |c_{t-1}|²
        CE_k = -log softmax_j(cos(W_k c_t, e_j) / τ)  at j = x_{t-k}

    over all rows and lags whose token exists: `past` lags k = 0, 1, … and `future` lags k = -1,
    -2, …. e are the embeddings as the recurrence reads them, candidates j the U different tokens
    that a batch holds, w is `context_weight`, d is `Linear(C -> 2C) -> ReLU -> Linear(2C -> C)`.
    Squared lengths are summed over the batch before they are divided, and that of c_{t-1} counts
    as N C / 1000 at least. Of several processes each has a loss of its own share of a batch, whose
    tokens are the candidates, so that here the loss depends on their number.

    A context has to say which token it was, not to give back the hundreds of numbers of its
    embedding. Neither term can be made smaller by shrinking contexts. No gradient reaches
    embeddings or the context before.

    Source: the loss is InfoNCE (van den Oord, Li & Vinyals 2018, arXiv 1807.03748, equation 4).
    """

    Options = TokensOptions
    options: TokensOptions

    def __init__(
        self,
        context_dim: int,
        embed_dim: int,
        vocab_size: int,
        options: TokensOptions | None = None,
    ) -> None:
        super().__init__(context_dim, embed_dim, vocab_size, options)
        offsets = range(1 - self.options.past, self.options.future + 1)
        self.places = [TOKENS_AT + (f"{offset:+d}" if offset else "0") for offset in offsets]
        self.reads = (EMBEDDING_MATRIX, *self.places)
        self.guess = nn.Linear(context_dim, len(self.places) * embed_dim)
        self.before = nn.Sequential(
            nn.Linear(context_dim, 2 * context_dim),
            nn.ReLU(),
            nn.Linear(2 * context_dim, context_dim),
        )

    def loss(
        self, *, final_NC: Tensor, incoming_NC: Tensor, embedded_NE: Tensor, **read: Tensor
    ) -> Tensor:
        """Choose every token among those of the batch, and guess the context before."""
        error = (at_least_float32(self.before(final_NC)) - incoming_NC).square().sum()
        # Before anything was read every context before is zero.
        error = error / incoming_NC.square().sum().clamp(min=incoming_NC.numel() * 1e-3)
        return self._choice(final_NC, read) + self.options.context_weight * error

    def _choice(self, final_NC: Tensor, read: dict[str, Tensor]) -> Tensor:
        ids_NK = torch.stack([read[place] for place in self.places], dim=1)
        exists_NK = ids_NK != NO_TOKEN
        # Another id in the place of what is missing adds no candidate.
        filled_NK = torch.where(exists_NK, ids_NK, ids_NK.max().clamp(min=0))
        # The one wait for the device: as many candidates as rows and lags would be several times
        # the work of those that differ.
        candidates_U, chosen_NK = torch.unique(filled_NK, return_inverse=True)
        e_UE = F.layer_norm(read[EMBEDDING_MATRIX][candidates_U], (self.embed_dim,))
        guess_NKE = at_least_float32(self.guess(final_NC)).unflatten(1, (*ids_NK.shape[1:], -1))
        guess = F.normalize(guess_NKE.flatten(0, 1), dim=1)
        logits = guess @ F.normalize(e_UE.to(guess), dim=1).T / self.options.temperature
        targets = torch.where(exists_NK, chosen_NK, NO_TOKEN).flatten()
        loss = F.cross_entropy(logits, targets, ignore_index=NO_TOKEN, reduction="sum")
        # Where no token exists: 0, with a gradient of 0.
        return loss / exists_NK.sum().clamp(min=1) / math.log(max(2, len(candidates_U)))
