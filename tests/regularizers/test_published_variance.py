"""`ema-variance` without a gradient is the published loop, value for value."""

import pytest
import torch

from .cases import batch, build

MOMENTUM = 0.99
PUBLISHED = ("ema-variance", {"gradient": "detached", "form": "mean", "epsilon": 1e-6})


def published_losses(contexts):
    """The diversity loss of every step of the published loop, in plain Python.

    Its first token makes mean and variance and has no loss; every other one reads the loss off the
    variance it finds, and only then moves variance and mean, the former by the old mean.
    """
    losses = []
    mean, variance = None, None
    for context in contexts:
        if mean is None:
            mean, variance = list(context), [1.0] * len(context)
            losses.append(0.0)
            continue
        losses.append(1.0 / (sum(variance) / len(variance) + 1e-6))
        deviation = [value - m for value, m in zip(context, mean, strict=True)]
        mean = [MOMENTUM * m + (1 - MOMENTUM) * c for m, c in zip(mean, context, strict=True)]
        variance = [
            MOMENTUM * v + (1 - MOMENTUM) * d**2 for v, d in zip(variance, deviation, strict=True)
        ]
    return losses


def losses(contexts):
    regularizer = build(PUBLISHED, contexts.shape[1]).to(contexts.dtype)
    return [
        regularizer(context[None], tokens_N=torch.zeros(1, dtype=torch.long)).item()
        for context in contexts
    ]


@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"), [(torch.float64, 1000, 1e-12), (torch.float32, 60, 1e-6)]
)
def test_many_steps(dtype, steps, tolerance):
    contexts = 0.3 * batch(steps, dtype=dtype)[0] + 0.2
    expected = published_losses(contexts.tolist())
    assert max(expected) > 1.3
    assert losses(contexts) == pytest.approx(expected, rel=tolerance)


def test_the_first_steps_of_contexts_whose_distances_are_known():
    """Mean squared distances from the running mean of .188 and .239, then anything."""
    first = torch.zeros(4, dtype=torch.float64)
    second = torch.tensor([0.188**0.5, -(0.188**0.5), 0.188**0.5, -(0.188**0.5)]).double()
    third = 0.01 * second + torch.full((4,), 0.239**0.5, dtype=torch.float64)
    found = losses(torch.stack([first, second, third, second]))
    assert [round(value, 4) for value in found] == [0.0, 1.0, 1.0082, 1.0159]


def test_the_value_comes_before_the_context():
    """A context far away changes the losses after its own."""
    contexts = 0.3 * batch(4)[0]
    far = contexts.clone()
    far[2] += 10
    assert losses(far)[:3] == losses(contexts)[:3]
    assert losses(far)[3] < losses(contexts)[3] - 0.4
