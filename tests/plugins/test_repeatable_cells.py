"""A cell whose figures nobody could repeat is refused in one line; one that looks odd is not."""

import pytest
import torch

from newllm_core.checkpoint import format as checkpoints
from tests.open_gate import OPEN_FLAGS

HEAD = """
import numpy
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from newllm_core.model.cells.base import Cell

SHARED = nn.Parameter(torch.ones(8))

class Odd(Cell):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.update = nn.Linear(context_dim + embed_dim, context_dim)
        {made}
    def forward(self, *, context, token):
        new = torch.tanh(self.update(torch.cat([context, token], -1)))
        {said}
        return new, token
"""
# What __init__ and forward have beside, and what the line says.
REFUSED = {
    "spectral": ("parametrizations.spectral_norm(self.update)", "", "forward changes update.param"),
    "old weight norm": ("weight_norm(self.update)", "", "after a call it cannot be copied"),
    "dropout": (
        "self.drop = nn.Dropout(0.1)",
        "new = self.drop(new)",
        "forward draws torch's random",
    ),
    "batch norm": ("self.norm = nn.BatchNorm1d(8)", "new = self.norm(new)", "changes norm.num_bat"),
    "counter": ("self.calls = 0", "self.calls += 1; new = new * self.calls", "a second call"),
    "kept": ("", "self.kept = new", "after a call it cannot be copied: keep nothing between two"),
    "bias written": (
        "",
        "self.update.bias.data.fill_(0.5); new = 0 * new + context * self.update.bias",
        "a call changes update.bias: keep nothing",
    ),
    "made late": (
        "",
        "self.late = getattr(self, 'late', nn.Parameter(torch.ones(8))); new = new * self.late",
        "forward changes late",
    ),
    "training": ("", "new = new * (2 if self.training else 1)", "depends on self.training"),
    "rows": ("", "new = new - new.mean(0)", "a row alone becomes something else than beside"),
    "shared": ("self.scale = SHARED", "new = new * self.scale", "all have the same scale: make it"),
    "numpy buffer": (
        "self.register_buffer('fixed', torch.tensor(numpy.random.rand(8)).float())",
        "new = new * self.fixed",
        "one seed makes two that differ in fixed: draw with torch in __init__",
    ),
    "numpy attribute": (
        "self.fixed = torch.tensor(numpy.random.rand(8)).float()",
        "new = new * self.fixed",
        "one seed makes two that differ: draw with torch in __init__",
    ),
    "complex": (
        "self.rate = nn.Parameter(torch.ones(8, dtype=torch.complex64))",
        "new = (new * self.rate).real",
        "rate is complex64: parameters are float32 (of a complex number two",
    ),
    "whole numbers": (
        "self.order = nn.Parameter(torch.arange(8), requires_grad=False)",
        "new = new[..., self.order]",
        "order is int64: parameters are float32",
    ),
}


def write(path, made, said):
    path.write_text(HEAD.format(made=made or "pass", said=said))
    return "--plugin", path


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_repeated_is_refused(phase1, tmp_path, case):
    made, said, line = REFUSED[case]
    done = phase1(*write(tmp_path / "odd.py", made, said), "--cell", "odd", "--num-layers", "2")
    done.one_line("cell 'odd' of file", line)
    assert (done.code, done.out) == (4, "")
    assert not list(tmp_path.glob("phase1*"))


def test_what_initialise_draws_from_torch_follows_from_the_seed(phase1, newllm, tmp_path):
    own = "def initialise(self, std, generator):\n        nn.init.normal_(self.update.weight)"
    plugin = write(tmp_path / "odd.py", f"nn.init.zeros_(self.update.bias)\n    {own}", "")
    found = []
    for name in ("one", "two"):
        torch.rand(7)  # whoever else draws
        out = tmp_path / f"{name}.safetensors"
        assert phase1(*plugin, "--cell", "odd", out=out).code == 0
        model = checkpoints.load(out).model
        initial, control = model.initial_blocks(), model.untrained().blocks
        assert initial[0].layers[0].update.weight.equal(control[0].layers[0].update.weight)
        found.append(model.blocks[0].layers[0].update.weight)
    assert found[0].equal(found[1])


def test_a_parameter_that_needs_no_gradient_stays_in_both_phases(phase1, newllm, tmp_path):
    made = "self.fixed = nn.Parameter(torch.ones(8, 8), requires_grad=False)"
    plugin = write(tmp_path / "odd.py", made, "new = new + context @ self.fixed")
    one, two = tmp_path / "phase1.safetensors", tmp_path / "phase2.safetensors"
    assert phase1(*plugin, "--cell", "odd").code == 0
    begun = ("phase2", one, *plugin, *OPEN_FLAGS, "--epochs=1", "--num-streams=2", "--bptt=8")
    done = newllm(*begun, "--out", two, "--max-tokens=64")
    assert done.code == 0, done.err
    before, after = (checkpoints.load(path).model.blocks[0].layers[0] for path in (one, two))
    assert after.fixed.equal(before.fixed)
    assert not after.update.weight.equal(before.update.weight)
