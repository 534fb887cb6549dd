"""Runs of Phase 1 on small text, and the published algorithm measured honestly."""

import itertools
import json

import numpy as np
import pytest
import torch

from newllm_core import settings
from newllm_core.errors import DivergedError
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.training.phase1 import measure
from newllm_core.training.phase1 import windows as walk
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.measure import model_figures
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase1.windows import Window
from newllm_core.training.phase2.extra_terms import make_objective
from newllm_core.trajectory.sequential import rollout

V, D = 50, 16
ENGINES = ("parallel", "streams", "online")
PUBLISHED = {"reg": "ema-variance", "engine": "online", "start": "zero"}
DETACHED = {"regularizer": {"gradient": "detached"}}


def markov_text(length, seed=0):
    """Each token allows six others."""
    noise = np.random.default_rng(seed).integers(0, 6, length)
    tokens = np.zeros(length, np.uint16)
    for place in range(1, length):
        tokens[place] = (7 * int(tokens[place - 1]) + int(noise[place])) % V
    return tokens


TEXT = {"train": markov_text(600), "validation": markov_text(150, seed=1)}


def make_config(section=None, **given):
    small = {
        "objective": "cvfp",
        "max_iterations": 5,
        "num_streams": 8,
        "chunk_steps": 8,
        "convergence_tokens": 64,
        "convergence_steps": 16,
        "exact_stream_tokens": 32,
        "min_converged_ratio": 1.0,
    }
    shape = {"model": {"context_dim": D, "embed_dim": D}}
    return settings.resolve(shape, {"phase1": small | given}, section or {})


def make_model(config, seed=0):
    return LanguageModel(config.model, V, cell=config.cell, seed=seed)


def make_regularizers(config, count=1):
    return REGULARIZERS.make(config.phase1.reg, config.regularizer, D, count=count)[0]


def train(section=None, *, text=TEXT, regularizers=None, objective=None, saver=None, **given):
    """A trained model and what happened."""
    config = make_config(section, **given)
    model = make_model(config)
    if regularizers is None:
        every_layer = config.phase1.apply_to == "every-layer"
        regularizers = make_regularizers(config, len(model.cells()) if every_layer else 1)
    if objective is None:
        objective, _ = make_objective(config.phase1.objective, config, model)
    loss = Phase1Loss(model, objective, regularizers, config.phase1)
    return model, Phase1Trainer(loss, text, config, saver=saver).run()


def short(length):
    return {"train": TEXT["train"][:length], "validation": TEXT["validation"][: length // 2]}


def same(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("engine", ENGINES)
def test_training_moves_blocks_only_and_contexts_settle(engine):
    text = short(80) if engine == "online" else TEXT
    model, result = train(engine=engine, max_iterations=8, text=text)
    initial = make_model(make_config())
    for (name, before), after in zip(initial.named_parameters(), model.parameters(), strict=True):
        # The token that leaves the last layer is read by nobody.
        parts = ("norm_token", "network.to_token")
        unread = any(name.startswith(f"blocks.1.layers.0.{part}") for part in parts)
        moves = name.startswith("blocks.") and not unread
        assert torch.equal(before, after) is not moves, name
    assert result.vacuous_terms == []
    assert result.weight_change > 0.01
    assert [entry["iteration"] for entry in result.history] == list(range(1, 9))
    for split in ("sweep_terms", "validation_terms"):
        assert result.history[0][split] == {}
        first, last = result.history[1][split]["cvfp"], result.history[-1][split]["cvfp"]
        assert 0 < last < 0.85 * first
    for entry in result.history[1:]:
        assert min(entry["gradient_norms"].values()) > 1e-6
        assert set(entry["gradient_norms"]) == {"cvfp", "regularizer"}
        assert 1 / D < entry["effective_rank_ratio"]["train"] < 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_gives_the_same_weights_bit_for_bit(engine):
    text = short(60) if engine == "online" else TEXT
    runs = [train(engine=engine, max_iterations=3, text=text) for _ in range(2)]
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert runs[0][1].weight_change > 0


def test_another_seed_reads_in_another_order():
    models = [train({"run": {"seed": seed}}, max_iterations=3)[0] for seed in (0, 1)]
    # Both began at the same weights.
    assert torch.equal(models[0].embedding.weight, models[1].embedding.weight)
    assert not same(*(model.blocks for model in models))


def test_no_iterations_leave_the_model_as_it_was():
    model, result = train(max_iterations=0)
    assert same(model, make_model(make_config()))
    assert (result.history, result.vacuous_terms, result.weight_change) == ([], [], 0.0)


def test_the_first_iteration_only_reads():
    config = make_config(max_iterations=1)
    regularizers = make_regularizers(config)
    model, result = train(max_iterations=1, regularizers=regularizers)
    assert same(model, make_model(config))
    assert [entry["weight_change"] for entry in result.history] == [0.0]
    assert result.history[0]["gradient_norms"] == {}
    # Statistics of regularizers are of training only.
    assert torch.equal(regularizers[0].covariance_DD, torch.eye(D))


def test_learning_rates_by_stage():
    _, result = train(max_iterations=10, text=short(60))
    rates = [entry["learning_rate"] for entry in result.history]
    assert rates == [0.0] + [0.002] * 2 + [0.0005] * 5 + [0.0001] * 2
    _, result = train(max_iterations=4, text=short(60), lr_schedule="constant", learning_rate=0.01)
    assert [entry["learning_rate"] for entry in result.history] == [0.0] + [0.01] * 3


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
    model, result = train(max_iterations=3, learning_rate=0, lr_schedule="constant")
    assert result.weight_change == 0.0
    assert same(model, make_model(make_config()))
    assert result.vacuous_terms == []
    assert result.history[-1]["gradient_norms"]["regularizer"] > 1e-6


@pytest.mark.parametrize(("fewest", "most", "expected"), [(1, 9, 1), (4, 9, 4), (9, 6, 6)])
def test_early_stopping_waits_for_the_fewest_iterations(fewest, most, expected):
    given = {"min_iterations": fewest, "max_iterations": most, "min_converged_ratio": 0}
    _, result = train(text=short(60), **given)
    assert len(result.history) == expected


def test_early_stopping_looks_at_the_measured_ratio():
    given = {"convergence_threshold": 0.3, "max_iterations": 12, "convergence_steps": 30}
    _, free = train(**given)
    ratios = [entry["converged_ratio"]["train"] for entry in free.history]
    asked = sorted(ratios[1:])[-2]
    first = next(number for number, ratio in enumerate(ratios) if ratio >= asked and number)
    _, result = train(**given, min_converged_ratio=asked, min_iterations=2)
    assert 0 < asked < 1
    assert len(result.history) == first + 1
    assert result.history.pop()["stopped_early"] is True
    assert result.history == free.history[:first]


@pytest.fixture
def windows(monkeypatch):
    """Every window that a run makes: training and validation in turn."""
    made = []

    class Recorded(Window):
        def __post_init__(self):
            super().__post_init__()
            made.append(self)

    monkeypatch.setattr(walk, "Window", Recorded)
    return made


@pytest.mark.parametrize("engine", ["parallel", "streams"])
def test_a_long_text_is_walked_window_by_window(windows, engine):
    _, result = train(engine=engine, window_tokens=170, max_iterations=2, max_tokens=500)
    train_windows, validation_windows = windows[0::2], windows[1::2]
    assert [len(window) for window in train_windows] == [170, 170, 160]
    read = torch.cat([window.tokens_T for window in train_windows])
    assert read.tolist() == TEXT["train"][:500].tolist()
    assert not train_windows[0].first_C.any()
    for one, following in itertools.pairwise(train_windows):
        assert one.previous_TC.shape == one.current_TC.shape == (len(one), D)
        assert torch.equal(following.first_C, one.previous_TC[-1])
        assert following.first_C.norm() > 1
    assert [len(window) for window in validation_windows] == [64] * 3
    places = [(entry["window"], entry["iteration"]) for entry in result.history]
    assert places == [(w, i) for w in (1, 2, 3) for i in (1, 2)]
    changes = [entry["weight_change"] for entry in result.history]
    assert 0 == changes[0] < changes[1] == changes[2] != changes[3]


def test_every_layer_can_be_regularized():
    section = {"model": {"layer_structure": [2, 1]}}
    final, _ = train(section, max_iterations=2)
    every, result = train(section, max_iterations=2, apply_to="every-layer")
    assert not same(final, every)
    assert result.history[-1]["gradient_norms"]["regularizer"] > 1e-6


def test_the_reconstruction_objective_trains_blocks_and_decoder():
    section = {"model": {"cell": "gated", "layer_structure": [1]}}
    section |= {"phase1": {"objective": "reconstruction"}}
    config = make_config(section)
    initial = make_model(config)
    decoder, untrained = (make_objective("reconstruction", config, initial)[0] for _ in range(2))
    given = {"reg": "none", "lr_schedule": "constant", "learning_rate": 0.01}
    model, result = train(section, objective=decoder, **given, batch_tokens=32, max_iterations=8)
    assert not any(map(torch.equal, decoder.parameters(), untrained.parameters()))
    assert not same(model.blocks, initial.blocks)
    assert same(model.token_output, initial.token_output)
    losses = [entry["sweep_terms"]["reconstruction"] for entry in result.history[1:]]
    assert losses[-1] < 0.8 * losses[0]
    assert list(result.history[-1]["sweep_terms"]) == ["reconstruction"]


def test_the_log_has_a_line_for_every_iteration(saver):
    _, result = train(saver=saver, max_iterations=3)
    assert saver.log.path.name == "run.metrics.jsonl"
    lines = [json.loads(line) for line in saver.log.path.read_text().splitlines()]
    assert lines == [{"event": "iteration"} | entry for entry in result.history]
    assert len(lines) == 3


class BrokenFromCall(Regularizer):
    """Not finite from the n-th training call on; `pulls` says whether it has a gradient."""

    def __init__(self, first, *, pulls=True, value=float("nan")):
        super().__init__(D)
        self.first, self.pulls, self.value, self.calls = first, pulls, value, 0

    def loss(self, contexts_ND, *, tokens_N):
        self.calls += self.training
        broken = self.training and self.calls >= self.first
        contexts = contexts_ND if self.pulls else contexts_ND.detach()
        return contexts.square().mean() * (self.value if broken else 1.0)


@pytest.mark.parametrize("pulls", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", [1, 3])
def test_a_loss_that_is_not_finite_ends_the_run(pulls, value, call):
    """200 tokens are one batch: training call n is in iteration n + 1."""
    broken = BrokenFromCall(call, pulls=pulls, value=value)
    with pytest.raises(DivergedError) as caught:
        train(regularizers=[broken], dist_reg_weight=0.5, text=short(200))
    message = str(caught.value)
    assert "loss term regularizer is not finite" in message
    assert f"window 1, iteration {call + 1}," in message
    assert "\n" not in message
    assert caught.value.exit_code == 5


def test_the_iteration_of_a_later_window_is_counted_within_it():
    with pytest.raises(DivergedError, match="window 2, iteration 3,"):
        train(
            regularizers=[BrokenFromCall(6)],
            dist_reg_weight=0.5,
            text=short(200),
            window_tokens=100,
            later_iterations=3,
        )


class InfiniteGradient(Regularizer):
    def loss(self, contexts_ND, *, tokens_N):
        return (contexts_ND * 0).sum().sqrt()


def test_a_gradient_that_is_not_finite_ends_the_run():
    with pytest.raises(DivergedError, match="the gradient of regularizer is not finite"):
        train(regularizers=[InfiniteGradient(D)], dist_reg_weight=0.5)


def test_contexts_that_explode_while_reading_end_the_run():
    section = {"cell": {"layernorm_mix": 0}, "model": {"init_std": 1.0}}
    with pytest.raises(DivergedError, match=r"not finite \(window 1, iteration 1,"):
        train(section, engine="streams", num_streams=1)


@pytest.fixture
def measured(monkeypatch):
    """What the run knew whenever it measured convergence."""
    calls = []

    def record(model, tokens, config, generator):
        calls.append((tokens.clone(), generator.get_state()))
        return model_figures(model, tokens, config, generator)

    monkeypatch.setattr(measure, "model_figures", record)
    return calls


def test_the_published_algorithm_trains_nothing_and_says_so(measured):
    model, result = train(DETACHED, **PUBLISHED, text=short(90), max_iterations=5)
    config = make_config(DETACHED, **PUBLISHED)
    untrained = make_model(config)

    assert result.weight_change == 0.0
    assert same(model, untrained)
    assert result.vacuous_terms == ["cvfp", "regularizer"]
    for entry in result.history[1:]:
        # It reads exactly what it read before.
        assert entry["sweep_terms"]["cvfp"] == 0.0
        assert entry["sweep_terms"]["regularizer"] > 0.5
        assert entry["gradient_norms"] == {"cvfp": 0.0, "regularizer": 0.0}

    # Convergence is what an untrained network has, not the 100 % of a repeated computation.
    reported = [entry["converged_ratio"][split] for entry in result.history for split in TEXT]
    for (tokens, state), ratio in zip(measured, reported, strict=True):
        generator = torch.Generator()
        generator.set_state(state)
        assert model_figures(untrained, tokens, config, generator)["converged_ratio"] == ratio
    assert max(reported) < 0.9


def test_a_detached_regularizer_is_vacuous_where_the_objective_trains():
    model, result = train(DETACHED, reg="ema-variance")
    assert result.vacuous_terms == ["regularizer"]
    assert result.weight_change > 0.01
    cvfp_only, _ = train(reg="none", dist_reg_weight=0)
    live, live_result = train(reg="ema-variance")
    assert live_result.vacuous_terms == []

    def distance(one, other):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    # Adam undoes the scale of the gradient: without the term the same steps are made.
    assert distance(model, cvfp_only) < 1e-3 < 5e-3 < distance(live, cvfp_only)


def test_no_regularizer_with_a_weight_is_vacuous_and_without_is_no_term():
    _, result = train(reg="none", dist_reg_weight=0.2)
    assert result.vacuous_terms == ["regularizer"]
    _, result = train(reg="none")
    assert result.vacuous_terms == []
    assert list(result.history[-1]["sweep_terms"]) == ["cvfp"]


def test_figures_of_an_iteration_are_those_of_exact_contexts(monkeypatch):
    """A sweep that has not settled leaves contexts of many directions; the model has one."""
    section = {
        "cell": {"layernorm_mix": 0.2},
        "model": {"init_std": 0.05},
        "phase1": {"objective": "reconstruction"},
    }
    given = {"convergence_tokens": 500, "convergence_steps": 250}
    model, result = train(section, max_iterations=3, **given)
    ids = torch.from_numpy(TEXT["train"].astype(np.int64))[None]
    exact = rollout(model, ids, model.start(1))[0, 64:]
    values = torch.linalg.svdvals(exact)
    shares = values / values.sum()
    rank = float((-(shares * shares.log()).sum()).exp()) / D
    last = result.history[-1]
    assert last["effective_rank_ratio"]["train"] == pytest.approx(rank, abs=0.05)
    assert last["norm_ratio"]["train"] == pytest.approx(
        float(exact.norm(dim=1).mean()) / D**0.5, rel=0.05
    )


def test_validation_figures_are_those_of_validation_text():
    """Constant validation text has contexts of next to one direction; training text has many."""
    text = {"train": TEXT["train"], "validation": torch.full((200,), 7).numpy()}
    _, result = train(text=text, max_iterations=3)
    ranks = result.history[-1]["effective_rank_ratio"]
    assert ranks["validation"] < 0.5 * ranks["train"]
    other = {"train": TEXT["train"], "validation": TEXT["train"][300:500]}
    _, second = train(text=other, max_iterations=3)
    for one, two in zip(result.history[1:], second.history[1:], strict=True):
        assert one["sweep_terms"] == two["sweep_terms"]
        assert one["validation_terms"] != two["validation_terms"]


def test_validation_losses_are_those_of_exact_contexts():
    """With the weights fixed, a rollout from zero and the loss of its neighbours says the same."""
    given = {"reg": "none", "max_iterations": 3, "learning_rate": 0.0, "start": "zero"}
    _, result = train(lr_schedule="constant", **given)
    # At fixed weights a second exact reading repeats the first; a sweep's contexts still move.
    for entry in result.history[1:]:
        assert entry["validation_terms"]["cvfp"] < 1e-9
    assert result.history[1]["sweep_terms"]["cvfp"] > 0.1


def test_later_windows_begin_with_an_exact_reading(windows):
    small = {"window_tokens": 300, "max_tokens": 600, "max_iterations": 1}
    model, _ = train(**small, exact_stream_tokens=300)  # a single stream
    second = windows[2]
    assert second.tokens_T.tolist() == TEXT["train"][300:600].tolist()
    exact = rollout(model, second.tokens_T[None], second.first_C[None])[0]
    assert torch.allclose(second.previous_TC, exact, atol=1e-5)
