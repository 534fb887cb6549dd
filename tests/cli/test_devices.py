"""Every command computes where it was asked to, and finds there what it finds on a processor."""

import numpy as np
import pytest
import torch

from newllm_core.config import RunConfig
from newllm_core.runtime import device as devices
from tests.cli.conftest import TINY
from tests.open_gate import OPEN
from tests.second_device import Held

# Whatever a model can have.
MODEL = (
    *("--set=model.slow_dims=4", "--set=model.slow_decays=[0.7, 0.9]", "--set=model.delay_dims=4"),
    *("--set=model.delay_tokens=2", "--set=model.head_hidden=8", "--set=model.head_bigrams=200"),
    "--set=model.head_reads_token=true",
)
TRAIN = (
    *(*OPEN, "--epochs=1", "--max-tokens=1000", "--set=phase2.eval_tokens=200"),
    *("--dropout=0", "--candidates=16"),
)
# Every operation of the other device passes Python.
LITTLE = tuple(f"--set=analysis.{name}=8" for name in ("dynamics_steps", "memory_lags"))


def commands(folder):
    """Name to arguments of commands that follow each other, and leave their files in `folder`."""
    first, tuned, expanded, heads = (
        f"{folder}/{name}.safetensors" for name in ("phase1", "tuned", "expanded", "heads")
    )
    return {
        "phase1": ("phase1", "--data=data", *TINY, *MODEL, "--max-iterations=2", f"--out={first}"),
        "analyze": ("analyze", first, *LITTLE),
        "phase2": ("phase2", first, *TRAIN, "--num-streams=16", f"--out={tuned}"),
        "expand": ("expand", tuned, f"--out={expanded}"),
        "heads": ("phase2", expanded, *TRAIN, "--freeze-context", f"--out={heads}"),
        "evaluate": ("evaluate", heads, f"--text={folder}/text.txt"),
        "contexts": ("contexts", heads, f"--text={folder}/text.txt", f"--out={folder}/read.npy"),
        "generate": ("generate", heads, "--prompt=The cat", "--max-tokens=20"),
    }


def figures(report, where=""):
    """Every number of a report but rates, by where it stands."""
    if isinstance(report, dict):
        parts = [(f"{where}.{key}", value) for key, value in report.items()]
    elif isinstance(report, list):
        parts = [(f"{where}[{index}]", value) for index, value in enumerate(report)]
    else:
        is_number = isinstance(report, int | float) and "seconds" not in where
        return {where: report} if is_number else {}
    return {k: v for place, part in parts for k, v in figures(part, place).items()}


@pytest.fixture
def on_device(second, trained, newllm, monkeypatch):
    """Runs a command on "cpu" or "second", beside prepared data."""
    known = RunConfig.__dataclass_fields__["device"]
    choices = {"choices": (*known.metadata["choices"], second.type)}
    monkeypatch.setattr(known, "metadata", {**known.metadata, **choices})
    there = [*devices.available_devices(), second.type]
    monkeypatch.setattr(devices, "available_devices", lambda: there)
    monkeypatch.chdir(trained[0])

    def run(name, *arguments):
        monkeypatch.setenv("NEWLLM_RUN_DEVICE", name)
        done = newllm(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json

    return run


@pytest.fixture(params=["as-cuda", "as-mps"])
def precise(request, monkeypatch):
    """The second device has float64, or none."""
    if request.param == "as-mps":
        monkeypatch.setattr(Held, "refused", {torch.float64})
        devices.WITHOUT_FLOAT64.add("second")
    yield
    devices.WITHOUT_FLOAT64.discard("second")


def test_every_command_runs_on_another_device(on_device, precise, tmp_path):
    found = {"cpu": {}, "second": {}}
    for device, reports in found.items():
        (tmp_path / device).mkdir()
        (tmp_path / device / "text.txt").write_text("The cat sees the dog.\n" * 40)
        for name, arguments in commands(tmp_path / device).items():
            reports[name] = on_device(device, *arguments)
    here, there = found.values()
    for name in ("phase1", "analyze", "phase2", "heads", "evaluate"):
        ours, others = figures(there[name]), figures(here[name])
        assert ours.keys() == others.keys()
        close = {key: pytest.approx(value, rel=1e-3, abs=1e-4) for key, value in others.items()}
        assert {key: value for key, value in ours.items() if value != close[key]} == {}
    assert there["generate"]["tokens"] == here["generate"]["tokens"]
    ours, others = (np.load(tmp_path / device / "read.npy") for device in found)
    np.testing.assert_allclose(ours, others, rtol=1e-3, atol=1e-3)


def test_products_of_bfloat16_train_there(on_device, tmp_path):
    losses = {}
    for device in ("cpu", "second"):
        (tmp_path / device).mkdir()
        asked = commands(tmp_path / device)
        on_device(device, *asked["phase1"], "--precision=bfloat16")
        report = on_device(device, *asked["phase2"], "--precision=bfloat16")
        losses[device] = [epoch["validation"]["loss"] for epoch in report["epochs"]]
    untrained, trained = losses["second"]
    assert trained < untrained - 0.02
    assert losses["second"] == pytest.approx(losses["cpu"], abs=0.005)
