"""Damaged files of every kind are refused with one line, or are valid and equal.

The short form is part of every run; the long one damages more than 10,000 files:

    python -m pytest -m slow tests/robustness/test_fuzz.py
"""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.robustness.fuzzing.outcomes import TARGETS

# Of a part; a single file that takes longer than 20 s is reported by the part itself.
SECONDS = 900


def start(folder, first, count):
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.robustness.fuzzing.worker", folder, str(first), str(count)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcomes(folder, process):
    """How often what came of which kind of file; fails if anything else did."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, f"{(folder / 'now').read_text()} ended it: {err[-2000:]}"
    found = json.loads(out)
    assert found["failures"] == []
    return found["counts"]


def test_damaged_files_are_refused_or_right(tmp_path):
    counts = outcomes(tmp_path / "0", start(tmp_path / "0", 0, 3 * len(TARGETS)))
    assert counts.keys() == TARGETS.keys()
    assert all(sum(of_target.values()) >= 1 for of_target in counts.values())
    refused = sum(n for of in counts.values() for name, n in of.items() if name.startswith("exit"))
    assert refused > 30


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path, capsys):
    each, parts = 245 * len(TARGETS), 2
    folders = [tmp_path / str(part) for part in range(parts)]
    running = [start(folder, each * (1 + part), each) for part, folder in enumerate(folders)]
    total = {name: Counter() for name in TARGETS}
    for folder, process in zip(folders, running, strict=True):
        for name, counts in outcomes(folder, process).items():
            total[name].update(counts)
    files = sum(map(Counter.total, total.values()))
    with capsys.disabled():
        print(f"\n{files:,} damaged files, 0 failures")
        for name, counts in total.items():
            shown = ", ".join(f"{key} {count:,}" for key, count in sorted(counts.items()))
            print(f"  {name}: {shown}")
    assert files >= 10_000
