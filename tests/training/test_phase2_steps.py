"""Steps of Phase 2: clipped, at the rate of the schedule; every epoch anew and elsewhere."""

import pytest
import torch
from markov_text import checkpoint, dataset

from newllm_core.config import Config, Phase2Config
from newllm_core.training.phase2 import streams
from newllm_core.training.phase2.run import train_phase2
from newllm_core.training.phase2.source import Terms
from newllm_core.training.phase2.steps import Steps, one_cycle


def first_step(**options):
    """The optimizer after a step whose gradient is 2 everywhere, and how far weights moved."""
    model = checkpoint().model
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    steps = Steps(parameters, Phase2Config(weight_decay=0.0, **options), 8)
    steps.make(Terms(sum((2 * p).sum() for p in parameters), {"cross-entropy": torch.ones(())}, 1))
    count = sum(p.numel() for p in parameters)
    assert steps.gradient_norm.item() == pytest.approx(2 * count**0.5)
    moved = torch.cat([(b - p.detach()).flatten() for b, p in zip(before, parameters, strict=True)])
    return steps, moved


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e4])
def test_the_gradient_that_moves_weights_is_no_longer_than_allowed(clip):
    steps, _ = first_step(gradient_clip=clip)
    moments = [of_one["exp_avg"].flatten() for of_one in steps.optimizer.state.values()]
    # Adam's first moment is a tenth of the gradient.
    norm = 0.5 if clip == 0.5 else steps.gradient_norm.item()
    assert 10 * torch.cat(moments).norm().item() == pytest.approx(norm, rel=1e-4)


def test_every_weight_moves_at_the_rate_of_the_schedule():
    schedule = {"learning_rate": 0.01, "warmup_fraction": 0.5}
    steps, moved = first_step(**schedule)
    rate = one_cycle(0, total=8, peak=0.01, warmup_fraction=0.5)
    assert rate == 0.0025
    assert len(steps.optimizer.param_groups) > 1
    torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("moves", [True, False])
def test_every_epoch_begins_its_streams_anew_and_elsewhere(moves, monkeypatch):
    """Weights that do not move predict the same tokens equally well, if they read the same."""
    if not moves:
        monkeypatch.setattr(streams, "beginning", lambda epoch, length, window: 0)
    config = Phase2Config(
        epochs=2, learning_rate=0.0, dropout=0.0, num_streams=8, bptt=16, weight_decay=0.0
    )
    data = dataset(documents=6)
    trained = train_phase2(checkpoint(), data, Config(phase2=config))
    _, first, second = trained.results["epochs"]
    assert (first["terms"] == second["terms"]) is not moves
