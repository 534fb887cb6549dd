"""The script that trains networks and examines them, on text of a few thousand tokens."""

import json

import pytest

from benchmarks import memory_of_networks
from newllm_core.config import Config, DataConfig
from newllm_core.data.prepare import prepare

NETWORKS = ["GRU", "tiny, Phase 1, frozen"]


@pytest.fixture
def folder(tmp_path):
    text = "\n".join(f"{n} times {n} is {n * n}." for n in range(400))
    (tmp_path / "text.txt").write_text(text)
    config = DataConfig(
        source="text-file",
        input=str(tmp_path / "text.txt"),
        vocab_size=270,
        val_fraction=0.3,
        val_token_policy="keep",
    )
    prepare(Config(data=config), tmp_path / "data")
    return tmp_path


def run(folder, monkeypatch, capsys):
    options = ["--tokens", "3000", "--params", "100000", "--threads", "1"]
    where = ["--data", str(folder / "data"), "--out", str(folder / "out")]
    arguments = ["memory_of_networks", *where, *options, "--networks", *NETWORKS]
    monkeypatch.setattr("sys.argv", arguments)
    memory_of_networks.main()
    return capsys.readouterr().out


@pytest.mark.slow
def test_rows_are_those_of_the_reports_and_are_not_made_twice(folder, monkeypatch, capsys):
    table = run(folder, monkeypatch, capsys)
    entries = map(json.loads, (folder / "out" / "networks.jsonl").read_text().splitlines())
    rows = {entry["key"]["network"]: entry["figures"] for entry in entries}
    assert list(rows) == NETWORKS
    for name, row in rows.items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[2] == f"{row['bits_per_byte']:.3f}"
        assert cells[-1] == f"{row['after']['token_memory']['total']:.2f}"
        # Guessing one of 270 tokens costs 8.1 bits, and most are single bytes.
        assert 0 < row["bits_per_byte"] < 8.1
        assert row["start"]["token_memory"] != row["after"]["token_memory"]
    page = (folder / "out" / "memory.html").read_text()
    assert 'id="chart-front"' in page
    assert 'id="chart-memory"' in page
    written = (folder / "out" / "networks.jsonl").read_text()
    assert run(folder, monkeypatch, capsys) == table
    assert (folder / "out" / "networks.jsonl").read_text() == written
