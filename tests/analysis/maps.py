"""Recurrences whose dynamics are known exactly, with as much of a model as analysis needs."""

from contextlib import nullcontext

import torch
from torch import nn

from newllm_core.config import ModelConfig


class Blocks(nn.Module):
    """One block of one cell, which is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *, context, token):
        return [[self.function(context, token)]]


class Map:
    """`c' = f(c, x)` with the token id itself as x [..., 1]."""

    twice_differentiable = True

    def __init__(self, context_dim, function):
        self.context_dim = context_dim
        self.config = ModelConfig()
        self.blocks = Blocks(function)

    def start(self, num_streams):
        return torch.zeros(num_streams, self.context_dim, dtype=torch.float64)

    def embed(self, tokens):
        return tokens[..., None].double()

    def step(self, *, context, token):
        return self.blocks(context=context, token=token)[0]

    def narrow_products(self, rows):
        return nullcontext()

    def cells(self):
        return [self]


def trajectory(model, tokens_PT, start_PC):
    """Contexts in a row [P, T + 1, C], the start included."""
    contexts = [start_PC]
    for token in model.embed(tokens_PT).unbind(1):
        contexts.append(model.step(context=contexts[-1], token=token)[-1])
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
