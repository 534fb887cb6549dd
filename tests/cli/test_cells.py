"""A cell from a file, through every command; and fast forms switched off."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from newllm_core.plugins.plugin import FROM_FILES
from tests.few import FEW_FLAGS
from tests.open_gate import OPEN_FLAGS

from .inside import save_dataset

LEAKY = """
import torch
from torch import nn

from newllm_core.model.cells.base import Cell


class Leaky(Cell):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.read = nn.Linear(context_dim + embed_dim, context_dim)

    def forward(self, *, context, token):
        return 0.5 * context + torch.tanh(self.read(torch.cat([context, token], -1))), token
"""
SMALL = ("--context-dim=8", "--embed-dim=8", "--max-iterations=2", "--threads=1")
GATE = OPEN_FLAGS
SHORT = ("--epochs=1", "--num-streams=2", "--bptt=8", "--threads=1")


@pytest.fixture
def data(tmp_path):
    return save_dataset(tmp_path)[0]


@pytest.fixture
def chain(newllm, data):
    """Runs a command with the cell and returns its report."""

    def command(*arguments):
        done = newllm(*arguments, "--plugin=leaky.py", "--json")
        assert done.code == 0, done.err
        FROM_FILES.clear()
        return done.json

    with open("leaky.py", "w") as file:
        file.write(LEAKY)
    command("phase1", "--data", data, "--cell=leaky", *SMALL, *FEW_FLAGS, "--out=p1.safetensors")
    return command


def test_what_a_cell_prints_is_no_result(newllm, chain):
    Path("text.txt").write_text("the cat sat on the mat.")
    loud = LEAKY.replace("        return 0.5", "        print('hello')\n        return 0.5")
    loud = loud.replace("        super()", "        print('made')\n        super()")
    Path("loud.py").write_text(loud)
    for arguments in (
        ("phase2", "p1.safetensors", *GATE, *SHORT, "--out=p2.safetensors"),
        ("expand", "p2.safetensors", "--out=e.safetensors", "--threads=1"),
        ("evaluate", "e.safetensors", "--threads=1"),
        ("contexts", "e.safetensors", "--text=text.txt", "--out=c.npy", "--threads=1"),
        ("generate", "e.safetensors", "--prompt=the cat", "--max-tokens=2", "--threads=1"),
        ("analyze", "p2.safetensors", "--num-pairs=50", "--threads=1"),
        ("compare", "p2.safetensors", "e.safetensors", "--num-pairs=50", "--threads=1"),
        ("bench", "--preset=cvfp-16", "--cell=leaky", "--rounds=1", "--threads=1", "--batch=16"),
    ):
        done = newllm(*arguments, "--plugin=loud.py", "--json")
        assert not done.code, done.err
        assert done.json["schema"] == 1
        assert "hello" in done.err
        FROM_FILES.clear()


def test_a_cell_from_a_file_passes_every_command(newllm, chain, data):
    analysed = chain("analyze", "p1.safetensors", "--threads=1", "--num-pairs=50")
    assert analysed["train"]["context_dim"] == 8
    # Half of a context stays in each of two cells; the slope of tanh moves it a little.
    assert analysed["train"]["lyapunov_exponent"]["mean"] == pytest.approx(-1.386, abs=0.5)
    trained = chain("phase2", "p1.safetensors", *GATE, *SHORT, "--out=p2.safetensors")
    before, after = (epoch["validation"]["loss"] for epoch in trained["epochs"])
    assert after < before
    expanded = chain("expand", "p2.safetensors", "--out=e.safetensors", "--threads=1")
    assert len(expanded["validation"]["heads"]) == 2
    evaluated = chain("evaluate", "p2.safetensors", "--threads=1")
    assert evaluated["validation"]["loss"] == pytest.approx(trained["validation"]["loss"])
    one = newllm("generate", "p2.safetensors", "--plugin=leaky.py", "--max-tokens=5", "--seed=1")
    assert one.code == 0, one.err
    assert one.out
    benched = chain(
        *("bench", "--preset=cvfp-16", "--cell=leaky", "--rounds=1", "--threads=1", "--batch=16"),
        *("--engine=parallel", "--precision=float32"),
    )
    assert benched["rows"][0]["tokens_per_second"] > 0
    compared = chain("compare", "p1.safetensors", "p2.safetensors", "--threads=1")
    assert [entry["error"] for entry in compared["checkpoints"]] == [None, None]


def test_another_version_of_the_cell_is_warned_of(newllm, chain):
    evaluate = ("contexts", "p1.safetensors", "--text=leaky.py", "--threads=1", "--plugin=leaky.py")
    assert "warning" not in newllm(*evaluate, "--out=same.npy").err
    FROM_FILES.clear()
    Path("leaky.py").write_text(LEAKY.replace("0.5 * context", "0.6 * context"))
    done = newllm(*evaluate, "--out=other.npy")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if "warning" in line]
    assert "p1.safetensors: cell 'leaky' of file" in line
    assert "is not the one it was trained with, sha256:" in line


OPTIONS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class LeakyOptions:
    rate: float = 0.5
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("self.read", "self.update", "tensors do not fit: blocks.0.layers.0.read.bias"),
        ("rate:", "share:", "unknown key cell.rate of cell 'leaky'"),
    ],
)
def test_another_version_of_the_cell_that_does_not_fit_is_no_damage(newllm, data, old, new, said):
    leaky = OPTIONS + LEAKY.replace("(Cell):\n", "(Cell):\n    Options = LeakyOptions\n\n")
    Path("leaky.py").write_text(leaky)
    phase1 = ("phase1", "--data", data, "--cell=leaky", *SMALL, *FEW_FLAGS, "--plugin=leaky.py")
    done = newllm(*phase1, "--set=cell.rate=0.4", "--out=p1.safetensors")
    (following,) = [line for line in done.out.splitlines() if line.startswith("next: ")]
    assert following == f"next: newllm analyze p1.safetensors --plugin {Path.cwd()}/leaky.py"
    FROM_FILES.clear()
    Path("later.py").write_text(leaky.replace(old, new))  # a file is imported once per process
    done = newllm("analyze", "p1.safetensors", "--plugin=later.py")
    assert done.code == 4
    assert "is not the one it was trained with, sha256:" in done.err
    assert said in done.err
    assert "damaged" not in done.err


def test_what_a_cell_keeps_in_buffers_is_saved_with_it(newllm, data):
    drawn = "self.register_buffer('fixed', torch.randn(context_dim, context_dim) / 4)"
    kinds = "self.register_buffer('kinds', torch.tensor([True, False]))"
    derived = "self.register_buffer('derived', torch.ones(1), persistent=False)"
    read = "self.read = nn.Linear(embed_dim, context_dim)"
    lines = LEAKY.replace("self.read = nn.Linear(context_dim + embed_dim, context_dim)", "pass")
    lines = lines.replace("pass", "\n        ".join([read, drawn, kinds, derived]))
    lines = lines.replace(
        "self.read(torch.cat([context, token], -1))",
        "context @ self.fixed + self.read(token) * self.derived * self.kinds[0]",
    )
    Path("reservoir.py").write_text(lines.replace("Leaky", "Reservoir"))
    for name in ("one", "other"):
        flags = ("--plugin=reservoir.py", "--json")
        begun = ("phase1", "--data", data, "--cell=reservoir", *SMALL, *FEW_FLAGS)
        assert newllm(*begun, f"--out={name}.safetensors", *flags).code == 0
        torch.rand(7)  # whoever else draws
    with safe_open("one.safetensors", "pt") as one, safe_open("other.safetensors", "pt") as other:
        name = "blocks.0.layers.0."
        assert one.get_tensor(name + "fixed").equal(other.get_tensor(name + "fixed"))
        assert one.get_tensor(name + "kinds").tolist() == [True, False]
        assert name + "derived" not in one.keys()  # noqa: SIM118
    base = ("phase2", "one.safetensors", *GATE, *SHORT, "--out=p2.safetensors")
    trained = newllm(*base, *flags)
    assert trained.code == 0, trained.err
    torch.rand(7)
    evaluated = newllm("evaluate", "p2.safetensors", *flags, "--threads=1").json
    loss = trained.json["validation"]["loss"]
    assert evaluated["validation"]["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    "command",
    [
        ("analyze", "p1.safetensors"),
        ("phase2", "p1.safetensors"),
        ("generate", "p1.safetensors"),
        ("evaluate", "p1.safetensors"),
        ("expand", "p1.safetensors"),
    ],
    ids=lambda command: command[0],
)
def test_without_the_file_one_line_names_the_cell(newllm, chain, command):
    done = newllm(*command)
    assert done.code == 4
    assert done.err.strip().count("\n") == 0
    assert "p1.safetensors" in done.err
    assert "cell 'leaky'" in done.err
    assert "--plugin" in done.err


def test_a_checkpoint_keeps_its_cell(newllm, data):
    options = ("--data", data, "--set=cell.hidden_dim=12", *SMALL, *FEW_FLAGS)
    assert newllm("phase1", *options, "--out=p1.safetensors").code == 0
    same = (
        "phase2",
        "p1.safetensors",
        *GATE,
        *SHORT,
        "--set=cell.hidden_dim=12",
        "--out=a.safetensors",
    )
    assert newllm(*same).code == 0
    done = newllm(
        "phase2", "p1.safetensors", *GATE, "--set=cell.hidden_dim=13", "--out=b.safetensors"
    )
    assert done.code == 2
    assert "cell.hidden_dim is 12 in this checkpoint and cannot become 13" in done.err
    assert "--set cell.hidden_dim=12" in done.err
    done = newllm("phase2", "p1.safetensors", *GATE, "--set=model.cell=gru", "--out=b.safetensors")
    assert done.code == 2
    assert "model.cell is 'residual' in this checkpoint and cannot become 'gru'" in done.err
    done = newllm("phase2", "p1.safetensors", *GATE, "--set=model.layer_structure=1,2,3")
    (kept,) = re.findall(r"--set (model\.layer_structure=[\d,]+)$", done.err.strip())
    assert newllm(*same, f"--set={kept}", "--overwrite").code == 0


def test_without_fast_forms_losses_are_the_same(newllm, data, monkeypatch):
    shape = [option for option in SMALL if "iterations" not in option]
    start = ("phase1", "--data", data, *shape, *FEW_FLAGS, "--max-iterations=0")
    assert newllm(*start, "--out=p1.safetensors").code == 0
    options = ("phase2", "p1.safetensors", *GATE, *SHORT, "--precision=float32", "--json")
    fast = newllm(*options, "--out=fast.safetensors").json["validation"]["loss"]
    plain = newllm(*options, "--out=plain.safetensors", "--kernels=off").json["validation"]["loss"]
    assert plain == pytest.approx(fast, rel=1e-4)
    monkeypatch.setenv("NEWLLM_RUN_KERNELS", "off")
    assert newllm(*options, "--out=same.safetensors").json["validation"]["loss"] == plain
