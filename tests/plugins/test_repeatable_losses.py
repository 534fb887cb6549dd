"""A loss that nobody could repeat or resume is refused in one line; statistics go on."""

import pytest
import torch

from newllm_core.training.saver import RunSaver
from tests.open_gate import OPEN_FLAGS

OBJECTIVE = """
import numpy
import torch
from torch import nn
from newllm_core.objectives.base import Objective

class Odd(Objective):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.head = nn.Linear(self.context_dim, self.embed_dim)
        {made}
    def loss(self, *, final_NC, incoming_NC, embedded_NE, **read):
        error = self.head(final_NC) - embedded_NE
        {said}
        return error.square().mean()
"""
REGULARIZER = """
import torch
from torch import nn
from newllm_core.regularizers.base import Regularizer

class Odd(Regularizer):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        {made}
    def loss(self, contexts_ND, *, tokens_N):
        error = contexts_ND.var(0, correction=0) - 1
        {said}
        return error.square().mean()
"""
MEAN = "self.register_buffer('mean', torch.zeros(8))"
BUFFER = "self.register_buffer('fixed', {})"
REFUSED = {
    "dropout": (OBJECTIVE, "self.drop = nn.Dropout(0.1)", "error = self.drop(error)", "random num"),
    "negatives": (OBJECTIVE, "", "error = error[torch.randperm(len(error))]", "random numbers"),
    "average": (
        OBJECTIVE,
        MEAN,
        "self.mean = 0.9 * self.mean + error.detach().mean(0); error = error - self.mean",
        "loss changes mean: keep nothing between two calls",
    ),
    "counter": (
        OBJECTIVE,
        "self.calls = 0",
        "self.calls += 1; error = error / self.calls",
        "a second call returns another loss: keep nothing between two calls",
    ),
    "numpy": (
        OBJECTIVE,
        BUFFER.format("torch.tensor(numpy.random.rand(8)).float()"),
        "error = error * self.fixed",
        "one seed makes two that differ in fixed: draw with torch in __init__",
    ),
    "parameters": (
        REGULARIZER,
        "self.scale = nn.Parameter(torch.ones(8))",
        "error = error * self.scale",
        "has parameters, which no optimizer trains (scale)",
    ),
    "draws": (
        REGULARIZER,
        "",
        "error = error * torch.rand(8)",
        "loss draws torch's random numbers",
    ),
    "attribute": (
        REGULARIZER,
        "self.mean = torch.zeros(8)",
        "self.mean = 0.9 * self.mean + error.detach(); error = error + self.mean",
        "cannot be resumed: with the buffers of another it returns another loss",
    ),
    "own generator": (
        REGULARIZER,
        "self.own = torch.Generator().manual_seed(1)",
        "error = error * torch.rand(8, generator=self.own)",
        "cannot be ",
    ),
    "evaluation": (
        REGULARIZER,
        MEAN,
        "self.mean = 0.9 * self.mean + error.detach(); error = error + self.mean",
        "loss changes mean: keep nothing between two calls",
    ),
}


def write(path, source, made, said):
    path.write_text(source.format(made=made or "pass", said=said))
    return "--plugin", path, "--objective" if source is OBJECTIVE else "--reg", "odd"


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_repeated_is_refused(phase1, tmp_path, case):
    source, made, said, line = REFUSED[case]
    done = phase1(*write(tmp_path / "odd.py", source, made, said), "--num-layers", "1")
    done.one_line(" 'odd' of file", line)
    assert (done.code, done.out) == (4, "")


@pytest.mark.parametrize("source", [OBJECTIVE, REGULARIZER])
def test_what_a_plugin_draws_where_it_is_made_follows_from_the_seed(phase1, tmp_path, source):
    made, said = BUFFER.format("torch.randn(8)"), "error = error * self.fixed"
    plugin = write(tmp_path / "odd.py", source, made, said)
    found = []
    for name in ("one", "two"):
        torch.rand(7)  # whoever else draws
        out = tmp_path / f"{name}.safetensors"
        done = phase1(*plugin, "--json", out=out)
        assert done.code == 0, done.err
        found.append(done.json["last_iteration"]["validation_terms"])
    assert found[0] == found[1]


def test_statistics_of_a_regularizer_go_on_where_phase_2_stopped(
    phase1, newllm, tmp_path, monkeypatch
):
    said = "now = 0.9 * self.mean + error; self.mean = now.detach() if self.training else self.mean"
    plugin = write(tmp_path / "odd.py", REGULARIZER, MEAN, f"{said}; error = now")
    one, maybe_save = tmp_path / "phase1.safetensors", RunSaver.maybe_save
    assert phase1().code == 0
    begun = ("phase2", one, *plugin, *OPEN_FLAGS, "--epochs=1", "--num-streams=2", "--bptt=8")
    begun += ("--reg-weight=0.5", "--max-tokens=128", "--json")
    whole = newllm(*begun, "--out", tmp_path / "whole.safetensors")
    assert whole.code == 0, whole.err

    def stop_after_three(saver, state):
        saver.interruption.asked = len(stopped) == 2
        stopped.append(1)
        maybe_save(saver, state)

    stopped = []
    parts = (*begun, "--out", tmp_path / "parts.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(RunSaver, "maybe_save", stop_after_three)
        assert newllm(*parts).code == 130
    resumed = newllm(*parts, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.json["epochs"][-1] == whole.json["epochs"][-1]
