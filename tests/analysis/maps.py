"""Recurrences whose dynamics are known exactly."""

import torch

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.config import AnalysisConfig, Config

SMALL = Config(analysis=AnalysisConfig(memory_lags=6, num_pairs=500, dependency_contexts=8))


class Map(Recurrence):
    """`c' = f(c, x)` with the token id itself as x [..., 1]."""

    largest_weight = 1

    def __init__(self, context_dim, function):
        self.context_dim = context_dim
        self.function = function

    def start(self, num_streams):
        return torch.zeros(num_streams, self.context_dim, dtype=torch.float64)

    def read(self, context_NC, tokens_N):
        return self.function(context_NC, tokens_N[..., None].double())


def trajectory(recurrence, tokens_PT, start_PC):
    """Contexts in a row [P, T + 1, C], the start included."""
    contexts = [start_PC]
    for token_P in tokens_PT.unbind(1):
        contexts.append(recurrence.read(contexts[-1], token_P))
    return torch.stack(contexts, dim=1)


def linear(matrix, shift=0.0):
    return Map(len(matrix), lambda c, x: c @ matrix.T + shift * x)


def with_spectrum(magnitudes, seed=0):
    """A matrix with these eigenvalues in a skew basis: it is not normal."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(magnitudes), len(magnitudes))
    basis = torch.randn(shape, generator=generator, dtype=torch.float64)
    return basis @ torch.diag(torch.tensor(magnitudes).double()) @ torch.linalg.inv(basis)


def random_tokens(passages, length, vocab, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab, (passages, length), generator=generator)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def zeros(width):
    return torch.zeros(1, width, dtype=torch.float64)


def linear_step(matrix, vocab=5):
    inlet = draw(vocab, len(matrix), seed=7)
    return lambda state, ids: state @ matrix.T + inlet[ids]
