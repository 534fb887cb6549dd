"""A head that is compared with a part of the vocabulary."""

import math

import pytest
import torch
from markov_text import checkpoint, dataset
from torch import nn

from newllm_core.config import Config, Phase2Config
from newllm_core.training.phase2 import candidates as sampling
from newllm_core.training.phase2.candidates import among_candidates, draw_candidates
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.run import train_phase2

VOCAB, DIMS = 40, 6


@pytest.fixture
def head():
    torch.manual_seed(1)
    return nn.Linear(DIMS, VOCAB, dtype=torch.float64)


@pytest.fixture
def rows(head):
    contexts = torch.randn(12, DIMS, dtype=torch.float64, requires_grad=True)
    return contexts, torch.randint(5, 20, (12,))


def nats_of(head, rows, drawn, seed=0):
    contexts, targets = rows
    generator = torch.Generator().manual_seed(seed)
    sampled = among_candidates(plain_cross_entropy, targets, VOCAB, drawn, generator)
    return sampled(head.weight, head.bias, contexts, targets)


@pytest.mark.parametrize("drawn", [VOCAB, 10 * VOCAB])
def test_all_candidates_give_the_whole_loss_and_its_gradients(head, rows, drawn):
    contexts, targets = rows
    wanted = (contexts, head.weight, head.bias)
    plain, nats = plain_cross_entropy(head.weight, head.bias, contexts, targets)
    sampled, sampled_nats = nats_of(head, rows, drawn)
    torch.testing.assert_close(sampled_nats, nats, rtol=1e-12, atol=0)
    for found, expected in zip(
        torch.autograd.grad(sampled, wanted), torch.autograd.grad(plain, wanted), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_the_sum_over_candidates_is_right_on_average(head, rows):
    """What is in doubt is the sum of exponentials: nats plus the logit of the target."""
    contexts, targets = rows
    with torch.no_grad():
        logits = head(contexts)
        reached = logits.gather(1, targets[:, None])[:, 0]
        sums = torch.stack(
            [(nats_of(head, rows, 8, seed)[1] + reached).exp() for seed in range(4000)]
        )
        torch.testing.assert_close(sums.mean(0), logits.exp().sum(1), rtol=0.02, atol=0)
        assert sums.std(0).min() > 0.05 * sums.mean(0).min()


def test_targets_are_candidates_once_and_others_are_raised():
    targets = torch.tensor([7, 3, 7, 7])
    tokens, raised, num_targets = draw_candidates(targets, VOCAB, 4, torch.Generator())
    assert tokens[:num_targets].tolist() == [3, 7]
    assert len(set(tokens.tolist())) == len(tokens) == 6
    assert raised.tolist() == pytest.approx([0, 0] + 4 * [math.log(38 / 4)])


def test_as_much_is_drawn_whatever_follows():
    """Processes and later steps go on from the same place of the stream."""
    states = set()
    for targets in ([1, 1, 1], [1, 2, 3], list(range(VOCAB))):
        generator = torch.Generator().manual_seed(5)
        draw_candidates(torch.tensor(targets), VOCAB, 4, generator)
        states.add(generator.get_state().numpy().tobytes())
    assert len(states) == 1


@pytest.mark.parametrize("frozen", [True, False])
def test_the_last_steps_compare_with_all(monkeypatch, frozen):
    drawn = []
    monkeypatch.setattr(
        sampling,
        "draw_candidates",
        lambda *given: drawn.append(given[2]) or draw_candidates(*given),
    )
    data = dataset(documents=6)
    options = Phase2Config(
        epochs=2,
        freeze_context=frozen,
        batch_tokens=64,
        num_streams=8,
        bptt=8,
        candidates=3,
        candidates_share=0.75,
    )
    train_phase2(checkpoint(), data, Config(phase2=options))
    rows = len(data.train.tokens) if frozen else len(data.train.tokens) // 8 * 8
    assert drawn == [3] * math.ceil(0.75 * 2 * math.ceil(rows / 64))
