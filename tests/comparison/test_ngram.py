"""Kneser-Ney against an independent count with dictionaries, and its probabilities sum to one."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from benchmarks.peers.ngram import KneserNey

END = 5
VOCAB = 6


def text_of(length, seed=0, noise=0.3):
    """Mostly the sum of the two tokens before; closed by the end token, as every document is."""
    random = np.random.default_rng(seed)
    tokens = [0, 1]
    for _ in range(length - 3):
        follows = (tokens[-1] + tokens[-2] + 1) % END
        tokens.append(int(follows if random.random() > noise else random.integers(END)))
    return np.array([*tokens, END], np.uint16)


class Counted:
    """The formulas of Chen & Goodman, one probability at a time."""

    def __init__(self, tokens, order):
        self.order = order
        text = (END, *tokens.tolist())
        self.counts = {}
        for n in range(order, 0, -1):
            first = 1 if n == 1 else 0
            grams = [text[i : i + n] for i in range(first, len(text) - n + 1)]
            if n == order:
                self.counts[n] = Counter(grams)
                continue
            before = defaultdict(set)
            for i in range(1, len(text) - n + 1):
                before[text[i : i + n]].add(text[i - 1])
            self.counts[n] = {gram: max(1, len(before[gram])) for gram in grams}
        self.discounts = {n: self.discount(counts) for n, counts in self.counts.items()}

    def discount(self, counts):
        n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return [0, 0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return [0, *(min(max(d, 0), k) for k, d in enumerate(found, 1))]

    def p(self, history, word, n):
        if n == 0:
            return 1 / VOCAB
        if len(history) < n - 1:
            return self.p(history, word, n - 1)
        h = tuple(history[len(history) - n + 1 :])
        following = {gram: c for gram, c in self.counts[n].items() if gram[:-1] == h}
        total = sum(following.values())
        lower = self.p(history, word, n - 1)
        if total == 0:
            return lower
        d = self.discounts[n]
        count = following.get((*h, word), 0)
        taken = sum(d[min(c, 3)] for c in following.values())
        return (count - d[min(count, 3)]) / total + taken / total * lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [7, 1500])
def test_probabilities_equal_an_independent_count(order, length):
    train, validation = text_of(length), text_of(60, seed=1, noise=0.6)
    model = KneserNey(train, vocab_size=VOCAB, order=order, end_id=END)
    counted = Counted(train, order)
    read = [END, *validation.tolist()]
    expected = [counted.p(read[:t], read[t], order) for t in range(1, len(read))]
    assert model.probabilities(validation) == pytest.approx(expected, rel=1e-12)
    assert model.num_ngrams == sum(len(counts) for counts in counted.counts.values())


@pytest.mark.parametrize("order", [1, 3, 6])
def test_probabilities_sum_to_one(order):
    model = KneserNey(text_of(400), vocab_size=VOCAB, order=order, end_id=END)
    for history in (text_of(9, seed=2), text_of(5, seed=3, noise=1), np.zeros(0, np.uint16)):
        p = [model.probabilities(np.append(history, word))[-1] for word in range(VOCAB)]
        assert sum(p) == pytest.approx(1, abs=1e-12)
        assert min(p) > 0


def test_enough_text_has_estimated_discounts():
    found = [KneserNey(text_of(n), vocab_size=VOCAB, order=3, end_id=END) for n in (7, 1500)]
    few, many = (model.orders[-1].discounts for model in found)
    assert few.tolist() == [0, 0.5, 1, 1.5]
    assert (many[1:] != few[1:]).all()


def test_the_history_is_used():
    # Two tokens decide the next one, and one token says nothing about it.
    train, validation = text_of(4000, noise=0.1), text_of(500, seed=1, noise=0.1)
    bits = []
    for order in (1, 2, 3):
        model = KneserNey(train, vocab_size=VOCAB, order=order, end_id=END)
        bits.append(-np.log2(model.probabilities(validation)).mean())
    assert bits[0] == pytest.approx(math.log2(END), abs=0.1)
    assert bits[1] == pytest.approx(math.log2(END), abs=0.1)
    # 0.92 of tokens as the rule says, 0.02 each of the four others.
    entropy = -0.92 * math.log2(0.92) - 0.08 * math.log2(0.02)
    assert bits[2] == pytest.approx(entropy, abs=0.1)
