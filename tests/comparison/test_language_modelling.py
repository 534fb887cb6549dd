"""The script, from prepared data to tables."""

import pytest

from benchmarks import language_modelling
from newllm_core.config import Config, DataConfig
from newllm_core.data.prepare import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared text, with and without a test split."""
    folder = tmp_path_factory.mktemp("toy")
    words = ["cat", "dog", "bird", "sees", "likes", "follows", "small", "red", "river", "runs"]
    documents = [
        " ".join(words[(d * d + i * (d + 3)) % len(words)] for i in range(60)) for d in range(40)
    ]
    (folder / "toy.txt").write_text("\n\n".join(documents))
    for name, share in (("data", 0.2), ("untested", 0.0)):
        data = DataConfig(
            source="text-file",
            input=str(folder / "toy.txt"),
            vocab_size=270,
            val_fraction=0.2,
            test_fraction=share,
            val_token_policy="keep",
        )
        prepare(Config(data=data, source={"document_separator": "\n\n"}), folder / name)
    return folder


def arguments(folder, data, *more):
    return [f"--data={folder / data}", f"--out={folder / 'out'}", "--params=40000", *more]


def test_the_script_from_data_to_tables(folder, capsys):
    options = ["--tokens=2048", "--seeds=1", "--rounds=1", "--threads=1", "--seconds=0.05"]
    models = ["gru", "ngram"]
    whole = arguments(folder, "data", *options, "--models", *models)
    language_modelling.run(language_modelling.parse(whole))
    text = capsys.readouterr().out
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == 2 * ["| model", "| ---", *(f"| {name}" for name in models)]
    # A uniform guess: log2(270) bits a token, a token of two bytes at least.
    reached = [float(row[-1].strip("*| ")) for row in rows if row[0][2:] in models]
    assert all(0 < bits < 4 for bits in reached), text
    assert len(reached) == 4
    written = (folder / "out" / "rows.jsonl").read_text()
    language_modelling.run(language_modelling.parse(whole))
    assert capsys.readouterr().out == text
    assert (folder / "out" / "rows.jsonl").read_text() == written


def test_data_without_a_test_split_is_refused_in_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["language_modelling", *arguments(folder, "untested")])
    assert language_modelling.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder / 'untested'} has no test split to report")
    assert line.endswith("newllm prepare --test-fraction .05")
