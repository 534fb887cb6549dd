"""The code on the page about plugins works as it stands."""

import re
from pathlib import Path

import pytest

from newllm_core.testing import check_data_source, check_regularizer

PAGE = Path(__file__).parents[2] / "docs" / "PLUGINS.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def files(tmp_path):
    """The files of the page, and an input."""
    (tmp_path / "spread.py").write_text(BLOCKS[0])
    (tmp_path / "lines.py").write_text(BLOCKS[1])
    lines = [f"line {n} of a book about {n * n}\n" for n in range(100)]
    (tmp_path / "book.txt").write_text("".join(lines))
    return tmp_path


def test_the_regularizer_has_fewer_than_30_lines():
    assert "class SpreadOut(Regularizer)" in BLOCKS[0]
    assert len(BLOCKS[0].splitlines()) < 30


def test_the_page_is_one_page():
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 160


def test_the_tests_on_the_page_pass(tmp_path):
    names = {}
    for block in BLOCKS:
        exec(block, names)
    assert names["check_regularizer"] is check_regularizer
    assert names["check_data_source"] is check_data_source
    names["test_it"](tmp_path)


def test_the_regularizer_trains(files, phase1):
    done = phase1(
        *("--plugin", files / "spread.py", "--reg", "spread-out"),
        *("--set", "regularizer.margin=0.5", "--json"),
    )
    assert done.code == 0
    assert done.json["vacuous_terms"] == []


def test_the_data_source_reads(files, newllm):
    done = newllm(
        *("prepare", "--plugin", files / "lines.py", "--source", "lines"),
        *("--input", files / "book.txt", "--out", files / "data", "--vocab-size", "300", "--json"),
    )
    assert done.code == 0
    counts = [split["documents"] for split in done.json["splits"].values()]
    assert sum(counts) <= 100
    assert sum(counts) > 90
