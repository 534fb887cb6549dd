"""What runs of Phase 1 do to a model, and when they end."""

import json

import pytest
import torch
from small_phase1 import (
    ENGINES,
    TEXT,
    D,
    make_config,
    make_model,
    make_regularizers,
    same,
    short,
    train,
)

from newllm_core.regularizers.base import Regularizer
from newllm_core.training.phase2.extra_terms import make_objective


@pytest.mark.parametrize("engine", ENGINES)
def test_training_moves_blocks_only_and_contexts_settle(engine):
    text = short(80) if engine == "online" else TEXT
    model, trainer = train(engine=engine, max_iterations=8, text=text)
    initial = make_model(make_config())
    for (name, before), after in zip(initial.named_parameters(), model.parameters(), strict=True):
        # The token that leaves the last layer is read by nobody.
        parts = ("norm_token", "network.to_token")
        unread = any(name.startswith(f"blocks.1.layers.0.{part}") for part in parts)
        moves = name.startswith("blocks.") and not unread
        assert torch.equal(before, after) is not moves, name
    assert trainer.guard.vacuous_terms() == []
    assert trainer.history[-1]["weight_change"] > 0.01
    assert [entry["iteration"] for entry in trainer.history] == list(range(1, 9))
    for split in ("sweep_terms", "validation_terms"):
        assert trainer.history[0][split] == {}
        first, last = trainer.history[1][split]["cvfp"], trainer.history[-1][split]["cvfp"]
        assert 0 < last < 0.85 * first
    for entry in trainer.history[1:]:
        assert min(entry["gradient_norms"].values()) > 1e-6
        assert set(entry["gradient_norms"]) == {"cvfp", "regularizer"}
        assert 1 / D < entry["effective_rank_ratio"]["train"] < 1


@pytest.mark.parametrize("uses_order", [True, False])
def test_a_regularizer_that_uses_order_sees_neighbours(uses_order):
    seen = []

    class Watching(Regularizer):
        def loss(self, contexts_ND, *, tokens_N):
            if self.training:
                seen.append(tokens_N.tolist())
            return contexts_ND.square().mean()

    Watching.uses_order = uses_order
    train(batch_tokens=50, regularizers=[Watching(D)], max_iterations=2)
    text = TEXT["train"].tolist()
    parts = [text[begin : begin + 50] for begin in range(0, 600, 50)]
    assert len(seen) == len(parts)
    assert all(part in parts for part in seen) is uses_order


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_gives_the_same_weights_bit_for_bit(engine):
    text = short(60) if engine == "online" else TEXT
    runs = [train(engine=engine, max_iterations=3, text=text) for _ in range(2)]
    assert same(runs[0][0], runs[1][0])
    one, other = ((trainer.history, trainer.guard.largest) for _, trainer in runs)
    assert one == other
    assert one[0][-1]["weight_change"] > 0


def test_another_seed_reads_in_another_order():
    models = [train({"run": {"seed": seed}}, max_iterations=3)[0] for seed in (0, 1)]
    # Both began at the same weights.
    assert torch.equal(models[0].embedding.weight, models[1].embedding.weight)
    assert not same(*(model.blocks for model in models))


def test_no_iterations_leave_the_model_as_it_was():
    model, trainer = train(max_iterations=0)
    assert same(model, make_model(make_config()))
    assert (trainer.history, trainer.guard.vacuous_terms()) == ([], [])


def test_the_first_iteration_only_reads():
    config = make_config(max_iterations=1)
    regularizers = make_regularizers(config)
    model, trainer = train(max_iterations=1, regularizers=regularizers)
    assert same(model, make_model(config))
    assert [entry["weight_change"] for entry in trainer.history] == [0.0]
    assert trainer.history[0]["gradient_norms"] == {}
    # Statistics of regularizers are of training only.
    assert torch.equal(regularizers[0].covariance_DD, torch.eye(D))


def test_learning_rates_by_stage():
    _, trainer = train(max_iterations=10, text=short(60))
    rates = [entry["learning_rate"] for entry in trainer.history]
    assert rates == [0.0] + [0.002] * 2 + [0.0005] * 5 + [0.0001] * 2
    _, trainer = train(max_iterations=4, text=short(60), lr_schedule="constant", learning_rate=0.01)
    assert [entry["learning_rate"] for entry in trainer.history] == [0.0] + [0.01] * 3


@pytest.mark.parametrize("rate", [0.002, 0.03])
def test_the_first_step_has_the_size_of_the_learning_rate(rate):
    """Adam's first step is the rate times the sign of the gradient; 200 tokens are one batch."""
    model, _ = train(max_iterations=2, learning_rate=rate, text=short(200))
    initial = make_model(make_config())
    pairs = zip(model.blocks.parameters(), initial.blocks.parameters(), strict=True)
    moved = torch.cat([(after - before).detach().flatten() for after, before in pairs])
    assert moved.abs().max().item() == pytest.approx(rate, rel=1e-3)


def test_clipping_limits_the_gradient_and_zero_sets_no_limit():
    free, _ = train(max_iterations=3, gradient_clip=0)
    loose, _ = train(max_iterations=3, gradient_clip=1e9)
    tight, _ = train(max_iterations=3, gradient_clip=1e-9)
    assert same(free, loose)
    assert not same(free, tight)


def test_without_a_step_gradients_are_reported_and_nothing_moves():
    model, trainer = train(max_iterations=3, learning_rate=0, lr_schedule="constant")
    assert trainer.history[-1]["weight_change"] == 0.0
    assert same(model, make_model(make_config()))
    assert trainer.guard.vacuous_terms() == []
    assert trainer.history[-1]["gradient_norms"]["regularizer"] > 1e-6


@pytest.mark.parametrize(("fewest", "most", "expected"), [(1, 9, 1), (4, 9, 4), (9, 6, 6)])
def test_early_stopping_waits_for_the_fewest_iterations(fewest, most, expected):
    given = {"min_iterations": fewest, "max_iterations": most, "min_converged_ratio": 0}
    _, trainer = train(text=short(60), **given)
    assert len(trainer.history) == expected


def test_early_stopping_looks_at_the_measured_ratio():
    given = {"convergence_threshold": 0.3, "max_iterations": 12, "convergence_steps": 30}
    _, free = train(**given)
    ratios = [entry["converged_ratio"]["train"] for entry in free.history]
    asked = sorted(ratios[1:])[-2]
    first = next(number for number, ratio in enumerate(ratios) if ratio >= asked and number)
    _, trainer = train(**given, min_converged_ratio=asked, min_iterations=2)
    assert 0 < asked < 1
    assert len(trainer.history) == first + 1
    assert trainer.history.pop()["stopped_early"] is True
    assert trainer.history == free.history[:first]


def test_every_layer_can_be_regularized():
    section = {"model": {"layer_structure": [2, 1]}}
    final, _ = train(section, max_iterations=2)
    every, trainer = train(section, max_iterations=2, apply_to="every-layer")
    assert not same(final, every)
    assert trainer.history[-1]["gradient_norms"]["regularizer"] > 1e-6


def test_the_reconstruction_objective_trains_blocks_and_decoder():
    section = {"model": {"cell": "gated", "layer_structure": [1]}}
    section |= {"phase1": {"objective": "reconstruction"}}
    config = make_config(section)
    initial = make_model(config)
    decoder, untrained = (make_objective("reconstruction", config, initial)[0] for _ in range(2))
    given = {"reg": "none", "lr_schedule": "constant", "learning_rate": 0.01}
    model, trainer = train(section, objective=decoder, **given, batch_tokens=32, max_iterations=8)
    assert not any(map(torch.equal, decoder.parameters(), untrained.parameters()))
    assert not same(model.blocks, initial.blocks)
    assert same(model.token_output, initial.token_output)
    losses = [entry["sweep_terms"]["reconstruction"] for entry in trainer.history[1:]]
    assert losses[-1] < 0.8 * losses[0]
    assert list(trainer.history[-1]["sweep_terms"]) == ["reconstruction"]


def test_the_log_has_a_line_for_every_iteration(saver):
    _, trainer = train(saver=saver, max_iterations=3)
    assert saver.log.path.name == "run.metrics.jsonl"
    lines = [json.loads(line) for line in saver.log.path.read_text().splitlines()]
    assert lines == [{"event": "iteration"} | entry for entry in trainer.history]
    assert len(lines) == 3
