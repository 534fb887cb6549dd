"""Two generations of contexts."""

import math

import numpy as np
import pytest
import torch

from newllm_core.config import Phase1Config
from newllm_core.training.phase1.windows import Window, Windows


def make(start="carry", length=5):
    return Window(torch.arange(length), torch.tensor([1.0, -2.0, 3.0]), start)


def test_before_the_first_reading_every_context_is_the_first():
    window = make()
    assert len(window) == 5
    assert window.previous_TC.tolist() == [[1.0, -2.0, 3.0]] * 5
    assert window.begin_C.tolist() == [1.0, -2.0, 3.0]


def test_a_reading_is_kept_apart_until_it_is_finished():
    window = make()
    window.store(torch.tensor([3, 0]), torch.tensor([[7.0] * 3, [8.0] * 3]))
    assert window.previous_TC.tolist() == [[1.0, -2.0, 3.0]] * 5
    window.store(torch.tensor([1, 2, 4]), torch.zeros(3, 3))
    window.finish_reading()
    assert window.readings == 1
    assert window.previous_TC[:, 0].tolist() == [8.0, 0.0, 0.0, 7.0, 0.0]
    window.store(torch.arange(5), torch.full((5, 3), 9.0))
    assert window.previous_TC[:, 0].tolist() == [8.0, 0.0, 0.0, 7.0, 0.0]
    window.finish_reading()
    assert window.previous_TC.unique().tolist() == [9.0]


@pytest.mark.parametrize(("start", "expected"), [("zero", [1.0, -2.0, 3.0]), ("carry", [6.0] * 3)])
def test_a_later_reading_begins_where_start_says(start, expected):
    window = make(start)
    window.store(torch.arange(5), torch.full((5, 3), 6.0))
    window.finish_reading()
    assert window.begin_C.tolist() == expected


def test_contexts_take_the_place_of_two_tables_and_no_more():
    window = make(length=100)
    tables = {window.previous_TC.data_ptr(), window.current_TC.data_ptr()}
    for reading in range(5):
        window.store(torch.arange(100), torch.full((100, 3), float(reading)))
        window.finish_reading()
        assert {window.previous_TC.data_ptr(), window.current_TC.data_ptr()} == tables
    assert window.previous_TC.shape == window.current_TC.shape == (100, 3)


@pytest.mark.parametrize("length", [10_000, 12_289, 30_001])
def test_every_window_of_a_long_text_is_from_all_over_it(length):
    windows = Windows(
        {"train": np.arange(length), "validation": np.arange(4)},
        Phase1Config(window_tokens=6_200),  # three parts of 2,066
        start_C=torch.zeros(3),
        end_id=0,
        reads=(),
        seed=0,
    )
    longest = math.ceil(length / 3)
    assert windows.count == math.ceil(longest / 2066)
    at_once = math.ceil(longest / windows.count)
    seen = []
    for number in range(windows.count):
        windows.go_to(number, torch.zeros(3))
        assert windows.tokens_before(number) == sum(map(len, seen))
        seen.append(windows.train.tokens_T)
        parts = torch.tensor([length // 3 * k + at_once * number for k in range(3)])
        assert (torch.isin(parts + 5, seen[-1])).all() or number == windows.count - 1
    sizes = list(map(len, seen))
    assert sizes[0] == max(sizes) in (3 * at_once, 3 * at_once - 1, 3 * at_once - 2)
    assert min(sizes) > sizes[0] - 3 * (windows.count + 1)  # none is a rest of a few tokens
    assert torch.cat(seen).sort().values.tolist() == list(range(length))
