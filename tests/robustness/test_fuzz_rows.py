"""Each row of a random file is taken as it is or counted as broken, and changes no other row.

The short form is part of every run; the long one reads 5,000 files:

    python -m pytest -m slow tests/robustness/test_fuzz_rows.py
"""

import random
from collections import Counter

import pytest

from newllm_core.data.sources.base import Broken, Note
from newllm_core.data.sources.rows import Rows
from tests.robustness.fuzzing.rows import BROKEN, random_file


def read(folder, numbers):
    """How many rows came out as what; fails at the first that came out otherwise."""
    counts = Counter()
    for number in numbers:
        name, data, expected = random_file(random.Random(number))
        path = folder / name
        path.write_bytes(data)
        found = [
            BROKEN if isinstance(document, Broken) else document
            for document in Rows(str(path)).documents()
            if not isinstance(document, Note)
        ]
        assert found == expected, f"file {number}, {name}"
        counts.update(document if document == BROKEN else "whole" for document in found)
    return counts


def test_rows_of_random_files_are_whole_or_broken(tmp_path):
    counts = read(tmp_path, range(100))
    assert counts["whole"] > 200
    assert counts["broken"] > 100


@pytest.mark.slow
def test_rows_of_five_thousand_random_files(tmp_path):
    counts = read(tmp_path, range(100, 5100))
    assert counts.total() > 20_000
