import builtins
import json

import pytest

from newllm_core.errors import ConfigError, InputError
from newllm_core.runtime.runlog import RunLog, metrics_path, numbers
from newllm_core.runtime.trackers.tensorboard import TensorBoard

LINES = [
    ("iteration", {"window": 1, "sweep_terms": {"cvfp": 0.5}, "converged_ratio": {"train": 0.9}}),
    ("iteration", {"window": 2, "sweep_terms": {"cvfp": 0.25}, "converged_ratio": {"train": 0.95}}),
    ("step", {"step": 40, "epoch": 1, "terms": {"cross_entropy": 7.0}}),
    ("epoch", {"epoch": 3, "train": {"loss": 2.0, "heads": [{"loss": 2.5}]}, "best": None}),
]


def scalars(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def write(checkpoint, lines, **options):
    with RunLog(checkpoint, **options) as log:
        for event, figures in lines:
            log.write(event, **figures)


def test_events_are_the_numbers_of_the_log(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    checkpoint = tmp_path / "a.safetensors"
    write(checkpoint, LINES, trackers=[TensorBoard])
    found = scalars(checkpoint.with_suffix(".tensorboard"))
    assert found["iteration/sweep_terms/cvfp"] == [(1, 0.5), (2, 0.25)]
    assert found["step/terms/cross_entropy"] == [(40, 7.0)]
    assert found["epoch/train/heads/1/loss"] == [(3, 2.5)]
    written = [json.loads(line) for line in metrics_path(checkpoint).read_text().splitlines()]
    expected = [
        f"{line['event']}/{tag}"
        for line in written
        for tag, _ in numbers({key: value for key, value in line.items() if key != "event"})
    ]
    assert set(found) == set(expected)


def test_an_earlier_run_of_the_same_name_is_replaced(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    checkpoint = tmp_path / "a.safetensors"
    write(checkpoint, LINES, trackers=[TensorBoard])
    write(checkpoint, LINES[:1], trackers=[TensorBoard])
    assert set(scalars(checkpoint.with_suffix(".tensorboard"))) == {
        "iteration/window",
        "iteration/sweep_terms/cvfp",
        "iteration/converged_ratio/train",
    }


def test_nothing_is_written_unless_asked_for(tmp_path):
    write(tmp_path / "a.safetensors", LINES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.metrics.jsonl"]


def test_a_missing_extra_is_one_helpful_line(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'newllm\[tensorboard\]'"):
        TensorBoard.require()


def test_a_tracker_that_cannot_begin_leaves_what_is_there(tmp_path):
    class Offline(TensorBoard):
        def __init__(self, checkpoint):
            raise RuntimeError("no route to host")

    checkpoint = tmp_path / "a.safetensors"
    write(checkpoint, LINES)
    before = metrics_path(checkpoint).read_bytes()
    with pytest.raises(InputError, match="--track: Offline cannot begin: no route to host"):
        write(checkpoint, LINES, trackers=[Offline])
    assert metrics_path(checkpoint).read_bytes() == before
