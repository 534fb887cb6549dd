"""The code on the page about plugins works as it stands."""

import re
from pathlib import Path

import pytest

from newllm_core.testing import check_cell, check_data_source, check_objective, check_regularizer
from tests.open_gate import OPEN_FLAGS

PAGE = Path(__file__).parents[2] / "docs" / "PLUGINS.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


# So little training leaves contexts near zero.
OPEN = OPEN_FLAGS
CHOSEN = ("--cell", "leaky", "--objective", "token-before")


@pytest.fixture
def files(tmp_path):
    """The files of the page, and an input."""
    (tmp_path / "mine.py").write_text(BLOCKS[0])
    (tmp_path / "more.py").write_text(BLOCKS[1])
    lines = [f"line {n} of a book about {n * n}\n" for n in range(100)]
    (tmp_path / "book.txt").write_text("".join(lines))
    return tmp_path


def test_a_cell_and_an_objective_fit_forty_lines():
    assert "class Leaky(Cell)" in BLOCKS[0]
    assert "class TokenBefore(Objective)" in BLOCKS[0]
    assert len(BLOCKS[0].splitlines()) <= 40


def test_the_page_is_not_long():
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 180


def test_the_tests_on_the_page_pass(tmp_path):
    names = {}
    for block in BLOCKS:
        exec(block, names)
    checks = (check_cell, check_data_source, check_objective, check_regularizer)
    assert all(names[check.__name__] is check for check in checks)
    names["test_it"](tmp_path)


@pytest.mark.parametrize("engine", ["parallel", "streams", "online"])
def test_the_cell_and_the_objective_train(files, phase1, engine):
    few = ("--max-tokens", "400", "--engine", engine)
    done = phase1("--plugin", files / "mine.py", *CHOSEN, *few, "--json")
    assert done.code == 0, done.err
    assert done.json["vacuous_terms"] == []


def test_the_cell_goes_through_every_command(files, phase1, newllm):
    plugin = ("--plugin", files / "mine.py")
    first, last, frozen, heads = (files / f"{name}.safetensors" for name in "abcd")
    assert phase1(*plugin, *CHOSEN, out=first).code == 0
    short = ("--epochs", "1", "--max-tokens", "300", *OPEN)
    objective = ("--objective", "token-before", "--objective-weight", "0.1")
    for line in (
        ("analyze", first),
        ("phase2", first, *short, *objective, "--out", last),
        ("phase2", first, *short, "--freeze-context", "--out", frozen),
        ("expand", frozen, "--out", heads),
        ("generate", last, "--prompt", "the", "--max-tokens", "3"),
        ("evaluate", last),
    ):
        done = newllm(*line, *plugin)
        assert done.code == 0, done.err


def test_an_objective_of_readings_is_refused_in_phase_2(files, phase1, newllm):
    plugin = ("--plugin", files / "mine.py")
    assert phase1(*plugin, *CHOSEN, out=files / "a.safetensors").code == 0
    done = newllm("phase2", files / "a.safetensors", *plugin, *OPEN, "--objective", "cvfp")
    assert done.code == 2
    done.one_line("phase2.objective = cvfp reads 'previous'")


def test_the_regularizer_trains(files, phase1):
    done = phase1(
        *("--plugin", files / "more.py", "--reg", "spread-out"),
        *("--set", "regularizer.margin=0.5", "--json"),
    )
    assert done.code == 0
    assert done.json["vacuous_terms"] == []


def test_the_data_source_reads(files, newllm):
    done = newllm(
        *("prepare", "--plugin", files / "more.py", "--source", "lines"),
        *("--input", files / "book.txt", "--out", files / "data", "--vocab-size", "300", "--json"),
    )
    assert done.code == 0
    counts = [split["documents"] for split in done.json["splits"].values()]
    assert sum(counts) <= 100
    assert sum(counts) > 90
