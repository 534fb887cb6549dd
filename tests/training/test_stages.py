"""The learning rate by iteration."""

import pytest

from newllm_core.config import Phase1Config
from newllm_core.training.phase1.stages import learning_rate


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
