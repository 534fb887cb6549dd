"""A text of several windows."""

import itertools

import pytest
import torch
from small_phase1 import (
    TEXT,
    D,
    train,
)

from newllm_core.training.phase1 import windows as walk
from newllm_core.training.phase1.windows import Window
from newllm_core.trajectory.sequential import rollout


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
    _, trainer = train(engine=engine, window_tokens=170, max_iterations=2, max_tokens=500)
    train_windows, validation_windows = windows[0::2], windows[1::2]
    assert [len(window) for window in train_windows] == [167, 167, 166]
    read = torch.cat([window.tokens_T for window in train_windows])
    assert read.tolist() == TEXT["train"][:500].tolist()
    assert not train_windows[0].first_C.any()
    for one, following in itertools.pairwise(train_windows):
        assert one.previous_TC.shape == one.current_TC.shape == (len(one), D)
        assert torch.equal(following.first_C, one.previous_TC[-1])
        assert following.first_C.norm() > 1
    assert [len(window) for window in validation_windows] == [64] * 3
    places = [(entry["window"], entry["iteration"]) for entry in trainer.history]
    assert places == [(w, i) for w in (1, 2, 3) for i in (1, 2)]
    changes = [entry["weight_change"] for entry in trainer.history]
    assert 0 == changes[0] < changes[1] == changes[2] != changes[3]


def test_later_windows_begin_with_an_exact_reading(windows):
    small = {"window_tokens": 300, "max_tokens": 600, "max_iterations": 1}
    model, _ = train(**small, exact_stream_tokens=300)  # a single stream
    second = windows[2]
    assert second.tokens_T.tolist() == TEXT["train"][300:600].tolist()
    exact = rollout(model, second.tokens_T[None], second.first_C[None])[0]
    assert torch.allclose(second.previous_TC, exact, atol=1e-5)


def test_measuring_validation_text_needs_no_folder_for_temporary_files(monkeypatch):
    def nowhere():
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    _, trainer = train(max_tokens=100, max_iterations=2)
    assert trainer.history[-1]["validation_terms"]["cvfp"] > 0
