"""The learning rate by iteration."""

import pytest

from newllm_core.config import Phase1Config
from newllm_core.settings import from_file, preset_names, resolve
from newllm_core.training.phase1.stages import (
    MOST_ENTRIES,
    early_stop,
    learning_rate,
    stops,
    thinned,
    told,
)


def test_the_stages_as_published():
    rates = [learning_rate(Phase1Config(), iteration) for iteration in range(1, 12)]
    assert rates == [0.002] * 3 + [0.0005] * 5 + [0.0001] * 3


def test_a_constant_rate():
    config = Phase1Config(lr_schedule="constant", learning_rate=0.01)
    assert [learning_rate(config, iteration) for iteration in (1, 4, 9, 100)] == [0.01] * 4


@pytest.mark.parametrize(
    ("warmup", "medium", "expected"), [(0, 0, "ccc"), (0, 2, "bbc"), (1, 2, "abc"), (5, 2, "aaa")]
)
def test_the_ends_of_the_stages_are_settings(warmup, medium, expected):
    config = Phase1Config(
        learning_rate=1.0,
        medium_learning_rate=0.1,
        fine_learning_rate=0.01,
        warmup_iterations=warmup,
        medium_iterations=medium,
    )
    named = {1.0: "a", 0.1: "b", 0.01: "c"}
    found = "".join(named[learning_rate(config, iteration)] for iteration in (1, 2, 3))
    assert found == expected


def test_later_windows_go_on_where_the_first_one_ended():
    config = Phase1Config(later_iterations=4)
    rates = [learning_rate(config, n, first_window=False) for n in range(1, 5)]
    assert rates == [0.0005] * 3 + [0.0001]
    short = Phase1Config(later_iterations=4, max_iterations=2)
    assert [learning_rate(short, n, first_window=False) for n in (1, 2)] == [0.0005, 0.0005]


def after(iteration, converged):
    return {"iteration": iteration, "converged_ratio": {"train": converged, "validation": 0.0}}


@pytest.mark.parametrize("preset", preset_names())
def test_every_option_of_every_preset_can_take_effect(preset):
    config = resolve(from_file(f"preset:{preset}")).phase1
    # An early stop saves at least one iteration, and asks for less than all tokens: those in which
    # a start is forgotten never have converged.
    assert stops(after(config.max_iterations - 1, 0.99), config)
    assert not stops(after(config.max_iterations - 1, 0.9), config)
    assert not stops(after(1, 1.0), config)
    assert "fewer from iteration" in early_stop(config)
    assert config.warmup_iterations < config.medium_iterations
    rates = {learning_rate(config, i) for i in range(2, config.max_iterations + 1)}
    assert len(rates) > 1 or config.lr_schedule == "constant"
    assert config.later_iterations <= config.max_iterations
    assert config.convergence_steps <= config.convergence_tokens
    assert config.min_batch_tokens <= config.batch_tokens


def test_training_text_alone_decides_about_an_early_stop():
    config = Phase1Config(min_converged_ratio=0.5, min_iterations=2)
    entry = after(2, 0.6)
    assert stops(entry, config)
    entry["converged_ratio"] = {"train": 0.4, "validation": 1.0}
    assert not stops(entry, config)


def test_an_early_stop_that_cannot_happen_is_explained():
    text = early_stop(Phase1Config(max_iterations=2))
    assert text == ("no early stop: phase1.min_iterations 3 is not below phase1.max_iterations 2")


def test_what_is_of_the_model_is_told_apart_from_what_is_of_the_sweep():
    entry = after(2, 0.95) | {
        "effective_rank_ratio": {"train": 0.9, "validation": 0.8},
        "mean_cosine": {"train": 0.01, "validation": 0.02},
        "sweep_terms": {"cvfp": 0.5},
    }
    assert told(entry) == (
        "ER/D 0.900 / 0.800, converged 95.0% / 0.0%, pair cosine 0.010 / 0.020 "
        "(train / validation); losses of the sweep: cvfp 0.5000"
    )


def test_a_history_stays_small_however_many_windows_there_are():
    history, longest = [], 0
    entries = [{"window": 1, "iteration": i} for i in range(1, 31)]
    entries += [{"window": w, "iteration": i} for w in range(2, 20_000) for i in (1, 2)]
    for entry in entries:
        history = thinned([*history, entry])
        longest = max(longest, len(history))
    assert longest == MOST_ENTRIES
    assert history[0] == entries[0] | {"left_out": len(entries) - len(history)}
    assert history[1:30] == entries[1:30]
    assert history[-1] == entries[-1]
    places = [(entry["window"], entry["iteration"]) for entry in history]
    assert places == sorted(set(places))
    of_windows = [[i for w, i in places if w == window] for window in {w for w, _ in places[30:-1]}]
    assert of_windows.count([1, 2]) >= len(of_windows) - 1 > 1000  # the last may be under way
    first, *rest = thinned([{"window": 1}] * (MOST_ENTRIES + 1))
    assert (len(rest), first["left_out"]) == (MOST_ENTRIES // 2, MOST_ENTRIES // 2)
