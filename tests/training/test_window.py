"""Two generations of contexts."""

import pytest
import torch

from newllm_core.training.phase1.windows import Window


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
