"""The command that measures a GPU: every part runs, on a processor at sizes that mean nothing."""

import json

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.recurrence import forms
from benchmarks.gpu.timing import Place
from benchmarks.gpu.training import memory_and_flop, preset, steps_of
from newllm_core.model.language_model import LanguageModel, Recurrence


@pytest.fixture
def run(monkeypatch, capsys):
    def started(*arguments):
        monkeypatch.setattr("sys.argv", ["gpu", *arguments])
        code = gpu.main()
        return code, capsys.readouterr()

    return started


@pytest.fixture
def compiled(monkeypatch):
    """What would be compiled; that takes a minute, and a compiler."""
    made = []
    monkeypatch.setattr(Recurrence, "compile", lambda blocks, *, dynamic: made.append(blocks))
    monkeypatch.setattr(torch, "compile", lambda form, *, mode, dynamic: made.append(form) or form)
    return made


@pytest.mark.parametrize("part", gpu.PARTS)
def test_every_part_has_figures(run, part, compiled):
    _, printed = run("--device", "cpu", "--quick", "--only", part)
    found = json.loads(printed.out.splitlines()[-1])
    rows = [row for row in found["rows"] if row["part"] == part]
    assert [row["case"] for row in rows if row.get("failed")] == []
    assert len(rows) >= 3 or part == "evaluation"
    assert rows[-1]["case"].strip() == "took"
    assert all(row["figure"] > 0 for row in rows if row["unit"] != "loss")
    assert len(compiled) == (2 if part in gpu.COMPILED else 0)
    # A processor differs from itself by nothing, and so does a run that was saved and read.
    assert all(row["figure"] == 0 for row in rows if row["unit"] == "loss")


# PyTorch's own GRU has no form for a device made of Python.
@pytest.mark.parametrize("part", [part for part in gpu.PARTS if part != "phase2"])
def test_every_part_runs_on_another_device(part, second, compiled):
    rows = list(gpu.measured([part], Place(second, quick=True)))
    assert [row["case"] for row in rows if row.get("failed")] == []
    # Adam divides gradients there, where the processor clips them first.
    assert all(row["figure"] < 1e-7 for row in rows if row["unit"] == "loss")


def test_every_form_of_the_recurrence_can_be_made(monkeypatch, compiled):
    def graphed(form, given, *, allow_unused_input=False):
        wanted = [x for x in (*given, *form.parameters()) if x.requires_grad]
        torch.autograd.grad(form(*given).sum(), wanted, allow_unused=allow_unused_input)
        return form

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    place = Place(torch.device("cpu"), quick=True)
    config = preset("tiny", place)
    model = LanguageModel(config.model, 97, cell=config.cell)
    given = torch.randn(3, 2, config.model.embed_dim, requires_grad=True), model.start(2)
    made = {name: make() for name, make in forms(model, None, given).items()}
    assert list(made) == ["plain", "graph", "graph, rounded once", "compiled"]
    # Of a module that becomes a graph, nothing else may be made.
    assert len({id(form) for form in made.values()}) == 4


def test_a_part_that_fails_says_so_and_the_others_follow(run, monkeypatch):
    def broken(place, peak):
        yield gpu.row("first", 1.0, "x")
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(gpu, "phase1", broken)
    code, printed = run("--device", "cpu", "--quick", "--only", "phase1", "evaluation")
    rows = json.loads(printed.out.splitlines()[-1])["rows"]
    assert code == 1
    assert rows[2]["case"] == "failed: RuntimeError: out of memory"
    assert {row["part"] for row in rows} == {"peak", "phase1", "evaluation"}
    # What is known is said at once, and where it broke.
    assert json.loads(printed.err.splitlines()[0])["part"] == "peak"
    assert "raise RuntimeError" in printed.err


def test_nothing_is_compiled_where_time_has_run_out(monkeypatch, compiled):
    monkeypatch.setattr(gpu, "LAST_TO_COMPILE_S", 0)
    rows = list(gpu.measured(["compiled-phase1"], Place(torch.device("cpu"), quick=True)))
    assert [row["case"] for row in rows[1:]] == ["left out, for want of time"]
    assert compiled == []


def test_products_of_a_token_are_those_that_are_made():
    place = Place(torch.device("cpu"), quick=True)
    config = steps_of("tiny", 32, place)
    model = LanguageModel(config.model, 97, cell=config.cell)
    weights = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    _, flop = memory_and_flop(config, place)
    # 6 a weight where every gradient is wanted and every token read: here neither is.
    assert 3 * weights < flop < 6 * weights


def test_a_bar_is_reached_from_above_and_a_difference_from_below():
    judged = [gpu.reached(gpu.row("", f, u, b)) for f, u, b in BARS]
    assert judged == [True, False, True, False, True, False, True]


BARS = [
    (1.0, "x", 1.0),
    (0.9, "x", 1.0),
    (0.0, "loss", 1e-3),
    (0.1, "loss", 1e-3),
    (5.0, "s", None),
    (float("nan"), "loss", 1e-3),
    (float("nan"), "s", None),
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_cuda_device_it_is_refused(run):
    code, printed = run()
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "finds no such device here; --device cpu --quick tries the code" in printed.err
