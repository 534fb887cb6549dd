"""What Phase 1 says of itself, and the published algorithm measured honestly."""

import numpy as np
import pytest
import torch
from small_phase1 import DETACHED, PUBLISHED, TEXT, D, make_config, make_model, same, short, train

from newllm_core.training.phase1 import measure
from newllm_core.training.phase1.measure import model_figures
from newllm_core.trajectory.sequential import rollout


@pytest.fixture
def measured(monkeypatch):
    """What the run knew whenever it measured convergence."""
    calls = []

    def record(model, tokens, config, generator, most):
        calls.append((tokens.clone(), generator.get_state(), most))
        return model_figures(model, tokens, config, generator, most)

    monkeypatch.setattr(measure, "model_figures", record)
    return calls


def test_the_published_algorithm_trains_nothing_and_says_so(measured):
    model, trainer = train(DETACHED, **PUBLISHED, text=short(90), max_iterations=5)
    config = make_config(DETACHED, **PUBLISHED)
    untrained = make_model(config)

    assert trainer.history[-1]["weight_change"] == 0.0
    assert same(model, untrained)
    assert trainer.guard.vacuous_terms() == ["cvfp", "regularizer"]
    for entry in trainer.history[1:]:
        # It reads exactly what it read before.
        assert entry["sweep_terms"]["cvfp"] == 0.0
        assert entry["sweep_terms"]["regularizer"] > 0.5
        assert entry["gradient_norms"] == {"cvfp": 0.0, "regularizer": 0.0}

    # Convergence is what an untrained network has, not the 100 % of a repeated computation.
    reported = [entry["converged_ratio"][split] for entry in trainer.history for split in TEXT]
    for (tokens, state, most), ratio in zip(measured, reported, strict=True):
        generator = torch.Generator()
        generator.set_state(state)
        found = model_figures(untrained, tokens, config, generator, most)
        assert found["converged_ratio"] == ratio
    assert max(reported) < 0.9


def test_a_detached_regularizer_is_vacuous_where_the_objective_trains():
    model, trainer = train(DETACHED, reg="ema-variance")
    assert trainer.guard.vacuous_terms() == ["regularizer"]
    assert trainer.history[-1]["weight_change"] > 0.01
    cvfp_only, _ = train(reg="none", dist_reg_weight=0)
    live, live_trainer = train(reg="ema-variance")
    assert live_trainer.guard.vacuous_terms() == []

    def distance(one, other):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    # Adam undoes the scale of the gradient: without the term the same steps are made.
    assert distance(model, cvfp_only) < 1e-3 < 5e-3 < distance(live, cvfp_only)


def test_no_regularizer_with_a_weight_is_vacuous_and_without_is_no_term():
    _, trainer = train(reg="none", dist_reg_weight=0.2)
    assert trainer.guard.vacuous_terms() == ["regularizer"]
    _, trainer = train(reg="none")
    assert trainer.guard.vacuous_terms() == []
    assert list(trainer.history[-1]["sweep_terms"]) == ["cvfp"]


def test_figures_of_an_iteration_are_those_of_exact_contexts(monkeypatch):
    """A sweep that has not settled leaves contexts of many directions; the model has one."""
    section = {
        "cell": {"layernorm_mix": 0.2},
        "model": {"init_std": 0.05},
        "phase1": {"objective": "reconstruction"},
    }
    given = {"convergence_tokens": 500, "convergence_steps": 250}
    model, trainer = train(section, max_iterations=3, **given)
    ids = torch.from_numpy(TEXT["train"].astype(np.int64))[None]
    exact = rollout(model, ids, model.start(1))[0, 64:]
    values = torch.linalg.svdvals(exact)
    shares = values / values.sum()
    rank = float((-(shares * shares.log()).sum()).exp()) / D
    last = trainer.history[-1]
    assert last["effective_rank_ratio"]["train"] == pytest.approx(rank, abs=0.05)
    assert last["norm_ratio"]["train"] == pytest.approx(
        float(exact.norm(dim=1).mean()) / D**0.5, rel=0.05
    )


def test_validation_figures_are_those_of_validation_text():
    """Constant validation text has contexts of next to one direction; training text has many."""
    text = {"train": TEXT["train"], "validation": torch.full((200,), 7).numpy()}
    _, trainer = train(text=text, max_iterations=3)
    ranks = trainer.history[-1]["effective_rank_ratio"]
    assert ranks["validation"] < 0.5 * ranks["train"]
    other = {"train": TEXT["train"], "validation": TEXT["train"][300:500]}
    _, second = train(text=other, max_iterations=3)
    for one, two in zip(trainer.history[1:], second.history[1:], strict=True):
        assert one["sweep_terms"] == two["sweep_terms"]
        assert one["validation_terms"] != two["validation_terms"]


def test_validation_losses_are_those_of_exact_contexts():
    """With the weights fixed, a rollout from zero and the loss of its neighbours says the same."""
    given = {"reg": "none", "max_iterations": 3, "learning_rate": 0.0, "start": "zero"}
    _, trainer = train(lr_schedule="constant", **given)
    # At fixed weights a second exact reading repeats the first; a sweep's contexts still move.
    for entry in trainer.history[1:]:
        assert entry["validation_terms"]["cvfp"] < 1e-9
    assert trainer.history[1]["sweep_terms"]["cvfp"] > 0.1
