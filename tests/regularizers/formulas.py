"""The regularizers again, in numpy and float64, one context at a time where that is possible.

Every class keeps the state of its statistics; `step` returns a loss and advances it. Options are
those of the defaults unless given.
"""

import math

import numpy as np


class EmaVariance:
    def __init__(self, dim, momentum=0.99, epsilon=1e-2, form="per-dimension", gradient="live"):
        detached = gradient == "detached"
        self.mean, self.variance = None if detached else np.zeros(dim), np.ones(dim)
        self.momentum, self.epsilon = momentum, epsilon
        self.form, self.detached = form, detached

    def step(self, contexts, tokens):
        if self.mean is None:
            self.mean = sum(contexts) / len(contexts)
            return 0.0
        mu = self.momentum
        before = self.variance
        batch = sum((c - self.mean) ** 2 for c in contexts) / len(contexts)
        self.variance = mu * self.variance + (1 - mu) * batch
        self.mean = mu * self.mean + (1 - mu) * sum(contexts) / len(contexts)
        variance = before if self.detached else self.variance
        if self.form == "mean":
            loss = 1 / (variance.mean() + self.epsilon)
        else:
            loss = np.mean([1 / (v + self.epsilon) for v in variance])
        return loss if self.detached else loss / (1 - mu)


class Distribution:
    def __init__(self, dim, statistics="batch", momentum=0.99):
        self.mean, self.variance = np.zeros(dim), np.ones(dim)
        self.statistics, self.momentum = statistics, momentum

    def step(self, contexts, tokens):
        if self.statistics == "batch":
            return (contexts.mean(0) ** 2).mean() + ((contexts.var(0, ddof=0) - 1) ** 2).mean()
        mu = self.momentum
        batch = sum((c - self.mean) ** 2 for c in contexts) / len(contexts)
        self.variance = mu * self.variance + (1 - mu) * batch
        self.mean = mu * self.mean + (1 - mu) * sum(contexts) / len(contexts)
        return ((self.mean**2).mean() + ((self.variance - 1) ** 2).mean()) / (1 - mu)


class CovarianceEma:
    def __init__(self, dim, momentum=0.9):
        self.covariance, self.momentum = np.eye(dim), momentum

    def step(self, contexts, tokens):
        mu, dim = self.momentum, len(self.covariance)
        batch = sum(np.outer(c, c) for c in contexts) / len(contexts)
        self.covariance = mu * self.covariance + (1 - mu) * batch
        return np.linalg.norm(self.covariance - np.eye(dim), "fro") ** 2 / dim


class PastContexts:
    def __init__(self, dim, num_contexts=10, *, past):
        self.past = list(past)
        assert len(self.past) == num_contexts

    def step(self, contexts, tokens):
        cosines = []
        for c in contexts:
            direction = c / np.linalg.norm(c)
            cosines += [direction @ past for past in self.past]
            self.past = [*self.past[1:], direction]
        return np.mean(np.square(cosines))


def scramble(key):
    """The 32-bit mixer lowbias32, in Python's unbounded integers."""
    key %= 2**32
    key = (key ^ key >> 16) * 0x7FEB352D % 2**32
    key = (key ^ key >> 15) * 0x846CA68B % 2**32
    return key ^ key >> 16


class FixedDimensions:
    def __init__(self, dim, share=0.25):
        self.dim = dim
        self.count = max(1, min(round(share * dim), dim - 1))

    def own(self, token):
        first = scramble(token)
        strides = [n for n in range(1, self.dim + 1) if math.gcd(n, self.dim) == 1]
        stride = strides[scramble(first + 1) % len(strides)]
        return [(first + i * stride) % self.dim for i in range(self.count)]

    def step(self, contexts, tokens):
        shares = [
            sum(c[d] ** 2 for d in self.own(int(t))) / sum(c**2)
            for c, t in zip(contexts, tokens, strict=True)
        ]
        return 1 - np.mean(shares)


class NoRegularizer:
    def __init__(self, dim):
        pass

    def step(self, contexts, tokens):
        return 0.0


REFERENCES = {
    "ema-variance": EmaVariance,
    "distribution": Distribution,
    "covariance-ema": CovarianceEma,
    "past-contexts": PastContexts,
    "fixed-dimensions": FixedDimensions,
    "none": NoRegularizer,
}
