"""Training, tuning, the cache and the script itself."""

import json

import pytest

from benchmarks import language_modelling
from benchmarks.comparison.budget import Budget, Setting
from benchmarks.comparison.cache import Cache
from benchmarks.comparison.comparison import Comparison
from benchmarks.comparison.counting import Ngram
from benchmarks.comparison.neural import PEERS, NeuralPeer
from benchmarks.comparison.report import spread, table
from benchmarks.comparison.tuning import DROPOUTS, LEARNING_RATES, at_edge, tune
from newllm_core.config import DataConfig
from newllm_core.data.prepare import prepare
from newllm_core.errors import ConfigError


@pytest.mark.parametrize("name", sorted(PEERS))
def test_peers_learn(name, conditions):
    contestant = NeuralPeer(name, conditions)
    assert abs(contestant.parameters - 49_000) <= 0.05 * 49_000
    setting = Setting.make(learning_rate=0.01, dropout=0.0)
    found = contestant.train(setting, 0, 4000, "float32")
    # Guessing by frequency costs 5.3 bits a token, and a token is two bytes.
    assert found["bits_per_byte"] < 2.5
    assert found["tokens"] == pytest.approx(4000, abs=60)
    assert found["epochs"] == 2
    assert found["curve"][0][1] > found["curve"][-1][1] + 0.1


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_the_seed_decides_a_run(name, conditions):
    contestant = NeuralPeer(name, conditions)
    setting = Setting.make(learning_rate=0.01, dropout=0.3)
    losses = [contestant.train(setting, seed, 600, "float32")["loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_budget_is_as_few_equal_passes_as_it_takes():
    assert Budget.of(900, 1000) == Budget(1, 900)
    assert Budget.of(1000, 1000) == Budget(1, 1000)
    assert Budget.of(2400, 1000) == Budget(3, 800)


@pytest.mark.parametrize("grid", ["small", "full"])
def test_tuning_takes_the_best_rate_then_the_best_dropout(grid):
    tried = []

    def score(setting):
        tried.append(setting)
        values = setting.as_dict()
        return abs(values["learning_rate"] - 0.006) + abs(values["dropout"] - 0.3)

    best = tune(score, name="gru", grid=grid).as_dict()
    assert best["dropout"] == 0.3
    assert best["learning_rate"] == min(LEARNING_RATES[grid], key=lambda rate: abs(rate - 0.006))
    assert len(set(tried)) == len(LEARNING_RATES[grid]) + len(DROPOUTS[grid]) - 1
    assert not at_edge(Setting.make(**best), grid)
    assert at_edge(Setting.make(learning_rate=LEARNING_RATES[grid][0], dropout=0.0), grid)


def test_the_cache_survives_an_interruption(tmp_path):
    path = tmp_path / "rows.jsonl"
    Cache(path).add({"row": "gru", "seed": 0}, {"bits_per_byte": 2.0})
    with path.open("a") as file:
        file.write('{"key": {"row": "gru", "se')
    cache = Cache(path)
    assert cache.get({"seed": 0, "row": "gru"}) == {"bits_per_byte": 2.0}
    assert cache.get({"row": "gru", "seed": 1}) is None
    cache.add({"row": "gru", "seed": 1}, {"bits_per_byte": 1.5})
    assert Cache(path).get({"row": "gru", "seed": 1}) == {"bits_per_byte": 1.5}


class Known:
    """A contestant whose results are known beforehand."""

    name, parameters, identity, ways = "known", 7, {"width": 3}, ("slow", "fast")

    def __init__(self):
        self.trained = []

    def rate(self, way):
        return {"slow": 100.0, "fast": 1000.0}[way]

    def seconds_before(self, seed):
        return 2.0

    def train(self, setting, seed, tokens, way):
        self.trained.append((setting.as_dict()["learning_rate"], seed, tokens, way))
        return {"bits_per_byte": 2.0 + seed - setting.as_dict()["learning_rate"], "tokens": tokens}


def test_rows_at_equal_time_read_what_the_speed_allows(tmp_path, conditions):
    def compare(known):
        cache = Cache(tmp_path / "rows.jsonl")
        comparison = Comparison([known], conditions, cache, rounds=3)
        options = {"tokens": 640, "seconds": 5.0, "seeds": 2, "grid": "small", "tune_tokens": 320}
        return comparison.compare(**options)

    known = Known()
    (model,) = compare(known)
    # (5 s - 2 s) at 1000 tokens/s, in whole steps of 4 x 16 tokens.
    assert [row["tokens"] for row in model["equal_time"]] == [2944, 2944]
    assert [row["bits_per_byte"] for row in model["equal_tokens"]] == [1.98, 2.98]
    assert (0.02, 1, 640, "fast") in known.trained
    assert model["way"] == "fast"
    assert len(model["tuning"]) == 6
    # The same again is all known.
    second = Known()
    assert compare(second) == [model]
    assert second.trained == []
    line = table([model], tokens=640, seconds=5.0).splitlines()[-1]
    assert line.startswith("| known | 7 | fast | 1,000 | dropout 0, learning rate 0.02 |")
    assert "2.4800 ± 0.7071 (2,944 tokens)" in line

    impatient = Comparison([known], conditions, Cache(tmp_path / "rows.jsonl"), rounds=3)
    with pytest.raises(ConfigError, match="too few"):
        impatient.tokens_in(known, 2.01, 0)


def test_spread_counts_runs_that_diverged():
    rows = [{"bits_per_byte": 2.0}, {"bits_per_byte": None}]
    assert spread(rows) == "1 of 2 diverged"
    assert spread(rows[:1]) == "2.0000"


def test_counting_reads_a_text_once(conditions):
    found = Ngram(conditions).train(Setting.make(order=3), 0, 10**6, "float64")
    assert found["tokens"] <= 2000
    assert found["bits_per_byte"] < 2.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared text, and a recipe for newllm."""
    folder = tmp_path_factory.mktemp("toy")
    words = ["cat", "dog", "bird", "sees", "likes", "follows", "small", "red", "river", "runs"]
    documents = [
        " ".join(words[(d * d + i * (d + 3)) % len(words)] for i in range(60)) for d in range(40)
    ]
    (folder / "toy.txt").write_text("\n\n".join(documents))
    data = DataConfig(
        source="text-file",
        input=str(folder / "toy.txt"),
        vocab_size=270,
        val_fraction=0.2,
        val_token_policy="keep",
    )
    options = {"document_separator": "\n\n"}
    prepare(data, options, folder / "data", seed=0)
    (folder / "ours.toml").write_text(
        "[model]\ntie_weights = true\nlayer_structure = [1]\n"
        "[phase2]\nnum_streams = 4\nbptt = 32\n"
        "[phase1]\nmax_iterations = 2\n"
        "[analysis]\nprobe_tokens = 256\nprobe_passages = 4\n"
    )
    return folder


def test_the_script_from_data_to_table_chart_and_json(folder, capsys):
    out = folder / "out"
    options = [
        *(f"--data={folder / 'data'}", f"--out={out}", f"--ours={folder / 'ours.toml'}"),
        *("--params=40000", "--tokens=2000", "--seeds=1", "--rounds=1", "--threads=1"),
    ]
    models = ["newllm", "lstm", "ngram"]
    whole = [*options, "--seconds=0.5", "--models", *models]
    language_modelling.run(language_modelling.parse(whole))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in models]
    results = json.loads((out / "results.json").read_text())
    for model in results["models"]:
        for rows in ("equal_tokens", "equal_time"):
            # A uniform guess: log2(270) bits a token, a token of two bytes at least.
            assert 0 < model[rows][0]["bits_per_byte"] < 4
    ours, lstm, _ = results["models"]
    assert abs(ours["parameters"] - 40_000) <= 2000
    assert ours["equal_tokens"][0]["tokens"] == 2000
    assert ours["equal_tokens"][0]["curve"][-1][0] == pytest.approx(2000, abs=200)
    assert len(lstm["tuning"]) == 6
    picture = (out / "curves.svg").read_text()
    assert picture.count("<path") >= 4
    assert picture.count("<circle") >= 5

    row = ["--only=newllm-phase1", "--lr=0.003", "--dropout=0.1", "--seed=1"]
    language_modelling.run(language_modelling.parse([*options, *row]))
    found = json.loads(capsys.readouterr().out)
    assert found["seconds_before"] > 0
    assert 0 < found["bits_per_byte"] < 4
    rows = (out / "rows.jsonl").read_text().splitlines()
    assert sum('"row": "newllm-phase1"' in line for line in rows) == 1


def test_a_mistake_is_one_line(folder, capsys, monkeypatch):
    arguments = [f"--data={folder / 'data'}", "--params=40000", "--only=gru", "--lr=0.01"]
    monkeypatch.setattr("sys.argv", ["language_modelling", *arguments])
    assert language_modelling.main() == 2
    assert (
        capsys.readouterr().err == "error: --only needs --lr and --dropout, or --order for ngram\n"
    )
