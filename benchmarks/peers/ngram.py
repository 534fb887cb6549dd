"""Interpolated modified Kneser-Ney n-grams (Chen & Goodman 1999, section 3.6): the floor.

    p(w | h) = max(c(h w) - D(c), 0) / Σ c(h ·) + γ(h) p(w | h')      h': h without its first token

The highest order counts occurrences, every lower one the number of different tokens before an
n-gram. D has three values by count (1, 2, 3 and more); γ makes probabilities sum to one; below
unigrams lies the uniform distribution.

n-grams are numbered from 0 and recognised by (number of their history, last token), so counting is
sorting and nothing is a dictionary.
"""

from dataclasses import dataclass

import numpy as np

UNSEEN = -1


@dataclass(frozen=True)
class _Order:
    """n-grams of one length, sorted by key.

    Attributes:
        keys: history number x vocabulary + last token.
        counts: of occurrences, or of different tokens before.
        totals: for each history, the sum of `counts`.
        backoff: for each history, γ.
        discounts: D of count 0, 1, 2, 3 and more.
    """

    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    backoff: np.ndarray
    discounts: np.ndarray


class KneserNey:
    """An n-gram model of a token sequence.

    Args:
        tokens: training ids [T].
        vocab_size: V.
        order: longest n-gram.
        end_id: what comes before the first token.
    """

    def __init__(self, tokens: np.ndarray, *, vocab_size: int, order: int, end_id: int) -> None:
        self.vocab_size = vocab_size
        self.end_id = end_id
        text = self._framed(tokens)
        levels: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        # Of every place of the text: the number of the n-gram that ends there, empty ones first.
        number = np.zeros(len(text), np.int64)
        for length in range(1, order + 1):
            ends = np.flatnonzero(number[:-1] != UNSEEN) + 1
            keys, inverse, occurrences = np.unique(
                number[ends - 1] * vocab_size + text[ends], return_inverse=True, return_counts=True
            )
            shorter = np.empty(len(keys), np.int64)
            shorter[inverse] = number[ends]
            levels.append((keys, occurrences, shorter))
            number = np.full(len(text), UNSEEN)
            number[ends] = inverse
            if length == 1:  # the frame is no event, but it is a history
                number[0] = _find(keys, text[:1])[0]
        self.orders: list[_Order] = []
        for length, (keys, occurrences, _) in enumerate(levels, start=1):
            counts = occurrences
            if length < order:
                # What only the text begins with has nothing before it: it occurred once.
                counts = np.maximum(np.bincount(levels[length][2], minlength=len(keys)), 1)
            histories = len(self.orders[-1].keys) if self.orders else 1
            self.orders.append(_order(keys, counts, keys // vocab_size, histories))

    @property
    def num_ngrams(self) -> int:
        """n-grams of every length."""
        return sum(len(order.keys) for order in self.orders)

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """Of every token [T] given all before it, float64."""
        text = self._framed(tokens)
        p = np.full(len(text), 1.0 / self.vocab_size)
        history = np.zeros(len(text), np.int64)
        for order in self.orders:
            found = _find(order.keys, history * self.vocab_size + text)
            counts = np.where(found != UNSEEN, order.counts[found], 0)
            discounted = counts - order.discounts[np.minimum(counts, 3)]
            known = (history != UNSEEN) & (order.totals[history] > 0)
            seen = history[known]
            p[known] = discounted[known] / order.totals[seen] + order.backoff[seen] * p[known]
            history = np.concatenate([[UNSEEN], found[:-1]])
        return p[1:]

    def _framed(self, tokens: np.ndarray) -> np.ndarray:
        return np.concatenate([[self.end_id], np.asarray(tokens, np.int64)])


def _order(keys: np.ndarray, counts: np.ndarray, history: np.ndarray, histories: int) -> _Order:
    discounts = _discounts(counts)
    totals = np.bincount(history, counts, histories)
    taken = np.bincount(history, discounts[np.minimum(counts, 3)], histories)
    backoff = np.divide(taken, totals, out=np.ones(histories), where=totals > 0)
    return _Order(keys, counts, totals, backoff, discounts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D of count 0, 1, 2, 3+ from how many n-grams have counts 1 to 4 (their equation 26)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if not (n > 0).all():
        return np.array([0.0, 0.5, 1.0, 1.5])  # too little text to estimate them
    y = n[0] / (n[0] + 2 * n[1])
    found = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
    return np.array([0.0, *np.clip(found, 0.0, (1, 2, 3))])


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where `wanted` is in sorted `keys`, or UNSEEN."""
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, index, UNSEEN)
