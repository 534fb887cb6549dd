"""Which token follows which, counted: what a head need not learn.

Shapes: N rows, P pairs, V vocabulary.
"""

import torch
from torch import Tensor, nn


class Bigrams(nn.Module):
    """A model of the next token given the last one, which is counted and never trained.

        p(w | v) = max(n(v w) - D, 0) / n(v) + rest(v) / n(v) p(w)

    The discount D has a value for counts of 1, 2, and 3 and more; p(w) is made alike of the number
    of different tokens before w; rest(v) makes probabilities sum to one. A token that never was
    followed by any has p(w). Before anything was counted every token is as likely as any other.

    Source: interpolated modified Kneser-Ney (Chen & Goodman 1999, section 3.6).

    Attributes:
        pairs: v V + w of every pair, in order; unused ones are V V [P].
        counts: n(v w) [P].
        totals: n(v) [V].
        rest: what of n(v) is not given to pairs [V].
        single: p(w) [V].
        discounts: D of counts 0, 1, 2, and 3 and more [4].
    """

    pairs: Tensor
    counts: Tensor
    totals: Tensor
    rest: Tensor
    single: Tensor
    discounts: Tensor

    def __init__(self, num_pairs: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.register_buffer("pairs", torch.full((num_pairs,), vocab_size**2))
        self.register_buffer("counts", torch.zeros(num_pairs))
        self.register_buffer("totals", torch.zeros(vocab_size))
        self.register_buffer("rest", torch.zeros(vocab_size))
        self.register_buffer("single", torch.full((vocab_size,), 1 / vocab_size))
        self.register_buffer("discounts", torch.zeros(4))

    def log_probability(
        self, last_N: Tensor, next_N: Tensor, *, counted_N: Tensor | None = None
    ) -> Tensor:
        """Return log p(next | last) [N].

        Where this very place was `counted_N`, it is taken out of n(v w), n(v) and rest(v) again. D
        and p(w) stay those of the whole text, so that a rare token still looks a little more likely
        than it would in other text (by 0.014 nats on average in 320,000 tokens of WikiText-2).
        """
        wanted_N = last_N * self.vocab_size + next_N
        places_N = torch.searchsorted(self.pairs, wanted_N).clamp(max=len(self.pairs) - 1)
        kept_N = self.pairs[places_N] == wanted_N
        n_N = torch.where(kept_N, self.counts[places_N], 0)
        total_N, rest_N = self.totals[last_N], self.rest[last_N]
        if counted_N is not None:
            fewer_N = (n_N - 1).clamp(min=0)
            # A pair that was too rare to be kept is a part of the rest.
            change_N = torch.where(kept_N, self._discount(fewer_N) - self._discount(n_N), -1)
            n_N = torch.where(counted_N, fewer_N, n_N)
            total_N = total_N - counted_N.to(total_N)
            rest_N = torch.where(counted_N, rest_N + change_N, rest_N)
        of_pair_N = n_N - self._discount(n_N)
        p_N = (of_pair_N + rest_N * self.single[next_N]) / total_N.clamp(min=1)
        p_N = torch.where(total_N > 0, p_N, self.single[next_N])
        return p_N.clamp(min=1e-30).log()  # rounding may have made it less than zero

    def probabilities(self, last_N: Tensor) -> Tensor:
        """Return p(w | last) of every token w [N, V]."""
        last_U, which_N = torch.unique(last_N, return_inverse=True)
        row_U = last_U * self.vocab_size
        begins_U = torch.searchsorted(self.pairs, row_U)
        lengths_U = torch.searchsorted(self.pairs, row_U + self.vocab_size) - begins_U
        # Of every pair of every row, one row after another.
        rows_M = torch.repeat_interleave(lengths_U)
        first_U = lengths_U.cumsum(0) - lengths_U
        places_M = torch.arange(len(rows_M), device=rows_M.device) + (begins_U - first_U)[rows_M]
        n_M, total_U = self.counts[places_M], self.totals[last_U]
        rest_U = torch.where(total_U > 0, self.rest[last_U] / total_U.clamp(min=1), 1)
        p_UV = rest_U[:, None] * self.single
        given_M = (n_M - self._discount(n_M)) / total_U[rows_M]
        p_UV[rows_M, self.pairs[places_M] % self.vocab_size] += given_M
        return p_UV.index_select(0, which_N)

    def mix(self, logits: Tensor, gate: Tensor, last: Tensor) -> Tensor:
        """Return `(1 - σ(gate)) softmax(logits) + σ(gate) p` [..., V].

        Shapes: `logits` [..., V], `gate` [..., 1], `last`, the tokens read last [...].
        """
        own = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        counted = self.probabilities(last.flatten()).view_as(own).to(own)
        return own.lerp(counted, gate.to(own).sigmoid()).clamp_(min=1e-30)

    def _discount(self, n_N: Tensor) -> Tensor:
        return self.discounts[n_N.clamp(max=3).long()]

    def require_order(self) -> None:
        """Raise `ValueError` unless these are counts that `count_bigrams` could have made."""
        ordered = bool((self.pairs.diff() >= 0).all())
        if not ordered or int(self.pairs[0]) < 0 or int(self.pairs[-1]) > self.vocab_size**2:
            raise ValueError("pairs of bigrams are not in order")
        parts = (self.counts, self.totals, self.rest, self.discounts)
        if min(float(part.min()) for part in parts) < 0 or float(self.single.min()) <= 0:
            raise ValueError("counts of bigrams are below zero")
