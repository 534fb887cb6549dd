"""The same figures as .metrics.jsonl: with the libraries where they are, and with stand-ins."""

import json
import sys
import types

import pytest
from newllm_trackers.mlflow import Mlflow
from newllm_trackers.trackio import Trackio
from newllm_trackers.wandb import Wandb

from newllm_core.errors import ConfigError
from newllm_core.plugins.registry import TRACKERS
from newllm_core.runtime.runlog import RunLog, metrics_path, numbers

LINES = [
    ("iteration", {"window": 1, "sweep_terms": {"cvfp": 0.5}, "converged_ratio": {"train": 0.9}}),
    ("iteration", {"window": 2, "sweep_terms": {"cvfp": 0.25}, "converged_ratio": {"train": 1.0}}),
    ("step", {"step": 40, "epoch": 1, "terms": {"cross_entropy": 7.0}}),
    ("epoch", {"epoch": 3, "train": {"loss": 2.0, "heads": [{"loss": 2.5}]}, "best": None}),
]
STEPS = [1, 2, 40, 3]


def write(checkpoint, tracker, lines=LINES, **options):
    with RunLog(checkpoint, trackers=[tracker], **options) as log:
        for event, figures in lines:
            log.write(event, **figures)


def expected(checkpoint):
    """Every number of the log: (name, step, value)."""
    found = []
    for text, step in zip(metrics_path(checkpoint).read_text().splitlines(), STEPS, strict=False):
        line = json.loads(text)
        event = line.pop("event")
        found += [(f"{event}/{name}", step, value) for name, value in numbers(line)]
    return sorted(found)


def named(rows):
    """Logged dictionaries as (name, step, value), with the step of their own event."""
    found = []
    for row in rows:
        steps = {k.partition("/")[0]: v for k, v in row.items() if k.endswith("/step")}
        figures = {k: v for k, v in row.items() if not k.endswith("/step")}
        found += [(k, steps[k.partition("/")[0]], v) for k, v in figures.items()]
    return sorted(found)


class Recorder(types.ModuleType):
    """The calls of a library that are made, and nothing else."""

    def __init__(self, name):
        super().__init__(name)
        self.rows, self.began, self.ended = [], [], 0
        self.info = types.SimpleNamespace(run_id="r")

    def init(self, **given):
        self.began.append(given)
        return self

    def define_metric(self, name, *, step_metric):
        assert name.partition("/")[0] == step_metric.partition("/")[0]

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.ended += 1

    def set_experiment(self, name):
        self.began.append({"project": name})

    def start_run(self, *, run_name):
        self.began[-1]["name"] = run_name
        return self

    def log_metrics(self, figures, *, step, run_id):
        assert run_id == "r"
        self.rows.append(figures | {f"{next(iter(figures)).partition('/')[0]}/step": step})

    def end_run(self):
        self.ended += 1


@pytest.fixture(params=[Wandb, Trackio, Mlflow])
def tracker(request, monkeypatch):
    name = request.param.__name__.lower()
    monkeypatch.setitem(sys.modules, name, Recorder(name))
    return request.param, sys.modules[name]


def test_calls_have_the_figures_of_the_log(tracker, tmp_path):
    kind, calls = tracker
    write(tmp_path / "a.safetensors", kind)
    assert named(calls.rows) == expected(tmp_path / "a.safetensors")
    assert len(calls.rows) == len(LINES)
    assert calls.began[0]["name"] == "a"
    assert calls.began[0]["project"] == "newllm"
    assert calls.ended == 1


def test_a_run_that_goes_on_is_shown_from_its_beginning(tracker, tmp_path):
    kind, calls = tracker
    checkpoint = tmp_path / "a.safetensors"
    write(checkpoint, kind, LINES[:2])
    calls.rows.clear()
    write(checkpoint, kind, LINES[2:], resume_after=2)
    assert named(calls.rows) == expected(checkpoint)


def test_training_goes_on_without_a_tracker_that_fails(tracker, tmp_path, caplog):
    kind, calls = tracker

    def fail(*arguments, **options):
        raise OSError("no route to host")

    calls.log = calls.log_metrics = fail
    write(tmp_path / "a.safetensors", kind)
    assert len(metrics_path(tmp_path / "a.safetensors").read_text().splitlines()) == len(LINES)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1  # not once a line
    assert "no route to host" in said[0]


def test_they_are_found_by_name_and_say_what_to_install(tracker, monkeypatch):
    kind, calls = tracker
    name = calls.__name__
    assert TRACKERS.load(name) is kind
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'newllm-trackers\[{name}\]'"):
        kind.require()


def test_mlflow_itself(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)  # where it keeps its own database
    write(tmp_path / "a.safetensors", Mlflow)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("newllm").experiment_id])
    assert run.info.run_name == "a"
    assert run.info.status == "FINISHED"
    found = [
        (name, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    ]
    assert sorted(found) == expected(tmp_path / "a.safetensors")


def test_wandb_itself(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path / "a.safetensors", Wandb)
    wandb.teardown()  # its own process has written everything then
    from wandb.proto import wandb_internal_pb2

    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    rows, data = [], file.read_bytes()[7:]  # behind a header: checksum, length, type, record
    while data:
        size = int.from_bytes(data[4:6], "little")
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[7 : 7 + size])
        data = data[7 + size :]
        items = record.history.item
        row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
        if row:
            rows.append({key: value for key, value in row.items() if not key.startswith("_")})
    assert named(rows) == expected(tmp_path / "a.safetensors")


def test_trackio_itself(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not installed")
    write(tmp_path / "a.safetensors", Trackio)
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("newllm", "a")
    kept = [{k: v for k, v in row.items() if k not in ("timestamp", "step")} for row in rows]
    assert named(kept) == expected(tmp_path / "a.safetensors")
    assert capfd.readouterr().out == ""
