"""Tuning, the cache, and which rows are trained at which length."""

import pytest

from benchmarks.comparison.budget import Budget
from benchmarks.comparison.cache import Cache
from benchmarks.comparison.comparison import TUNING_SEED, Comparison
from benchmarks.comparison.contestant import beginning
from benchmarks.comparison.counting import Ngram
from benchmarks.comparison.report import spread, table
from benchmarks.comparison.tuning import DROPOUTS, RATES, at_edge, descend, shown
from newllm_core.errors import ConfigError, DivergedError


def test_a_budget_is_as_few_equal_passes_as_it_takes():
    assert Budget.of(900, 1000) == Budget(1, 900)
    assert Budget.of(1000, 1000) == Budget(1, 1000)
    # A third pass would take 200 tokens of the text from the other two.
    assert Budget.of(2400, 1000) == Budget(2, 1000)
    assert Budget.of(2600, 1000) == Budget(3, 866)


AXES = {
    "learning_rate": RATES,
    "window": ("a", "b", "c"),
    "dropout": DROPOUTS,
    "input_dropout": DROPOUTS,
}
START = {"learning_rate": 0.01, "window": "a", "dropout": 0.0, "input_dropout": 0.0}


def test_tuning_goes_down_along_every_axis():
    tried = []

    def score(setting):
        tried.append(shown(setting))
        # The best rate is .02 in the window "c" and .005 in the others.
        best_rate = 0.02 if setting["window"] == "c" else 0.005
        off = RATES.index(setting["learning_rate"]) - RATES.index(best_rate)
        of_window = {"a": 1.0, "b": 2.0, "c": -3.0}[setting["window"]]
        dropouts = abs(setting["dropout"] - 0.2) + abs(setting["input_dropout"] - 0.1)
        return of_window + abs(off) + dropouts

    best = descend(score, AXES, START)
    wanted = {"learning_rate": 0.02, "window": "c", "dropout": 0.2, "input_dropout": 0.1}
    assert best == wanted
    # Few: the walk stops where it gets worse, and the two dropouts are apart.
    assert len(set(tried)) == 3 + 2 + 3 + 2 + 4
    assert not at_edge(best)
    assert at_edge(best | {"learning_rate": RATES[-1]})


def test_the_cache_survives_an_interruption(tmp_path):
    path = tmp_path / "rows.jsonl"
    Cache(path).add({"row": "gru", "seed": 0}, {"validation": 2.0})
    with path.open("a") as file:
        file.write('{"key": {"row": "gru", "se')
    cache = Cache(path)
    assert cache.get({"seed": 0, "row": "gru"}) == {"validation": 2.0}
    assert cache.get({"row": "gru", "seed": 1}) is None
    cache.add({"row": "gru", "seed": 1}, {"validation": 1.5})
    assert Cache(path).get({"row": "gru", "seed": 1}) == {"validation": 1.5}


class Known:
    """A contestant whose results are known beforehand: rate .02 is best at length, .01 is not."""

    name, ways, seeds = "known", ("exact", "fast"), True
    axes = {"learning_rate": RATES, "window": ("64x16", "32x32")}  # noqa: RUF012
    start = {"learning_rate": 0.01, "window": "64x16"}  # noqa: RUF012
    speeds = [{"window": "64x16"}, {"window": "32x32"}]  # noqa: RUF012

    def __init__(self):
        self.trained = []

    def identity(self, setting):
        return {"parameters": 7}

    def rate(self, setting, way):
        return {"exact": 1024.0, "fast": 4096.0}[way] * (1 + (setting["window"] == "32x32"))

    def train(self, setting, seed, tokens, way, *, test):
        self.trained.append((setting, seed, tokens, way, test))
        if setting["learning_rate"] == 0.04:
            raise DivergedError("the loss is not finite")
        bits = 2.0 + seed - setting["learning_rate"]
        return {"validation": bits, "tokens": tokens} | ({"test": bits + 0.5} if test else {})


def compare(known, conditions, path, **budget):
    comparison = Comparison([known], conditions, Cache(path), rounds=3)
    return comparison.compare(seeds=2, **budget)


def test_rows_are_tuned_at_their_own_length_on_validation_and_reported_on_test(
    tmp_path, conditions
):
    known = Known()
    (model,) = compare(known, conditions, tmp_path / "rows.jsonl", tokens=5000)
    tuning = [row for row in known.trained if row[1] == TUNING_SEED]
    reported = [row for row in known.trained if row[1] != TUNING_SEED]
    assert {row[2:] for row in tuning} == {(5000, "exact", False)}
    best = {"learning_rate": 0.02, "window": "64x16"}
    assert reported == [(best, seed, 5000, "exact", True) for seed in (1, 2)]
    assert [row["test"] for row in model["rows"]] == [3.48, 4.48]
    (line,) = table([model]).splitlines()[2:]
    tuned = "learning rate 0.02, window 64x16"
    ends = "5,000 | 3.4800 ± 0.7071 | **3.9800 ± 0.7071** |"
    assert line == f"| known | 7 | exact | {tuned} | {ends}"


def test_rows_at_equal_time_read_what_the_speed_of_their_setting_allows(tmp_path, conditions):
    known = Known()
    (model,) = compare(known, conditions, tmp_path / "rows.jsonl", seconds=2.6)
    lengths = {(row[0]["window"], row[2]) for row in known.trained}
    # 2.6 s at 4 and at 8 steps a second.
    assert lengths == {("64x16", 10 * 1024), ("32x32", 20 * 1024)}
    assert {row[3] for row in known.trained} == {model["way"]} == {"fast"}
    # The same again is all known.
    second = Known()
    assert compare(second, conditions, tmp_path / "rows.jsonl", seconds=2.6) == [model]
    assert second.trained == []
    with pytest.raises(ConfigError, match=r"--seconds 0\.1 is too little for known"):
        compare(known, conditions, tmp_path / "rows.jsonl", seconds=0.1)


def test_spread_counts_runs_that_diverged():
    assert spread([2.0, None]) == "1 of 2 diverged"
    assert spread([2.0, 3.0]) == "2.5000 ± 0.7071"


def test_counting_reads_a_text_once(conditions):
    found = Ngram(conditions).train({"order": 3}, 0, 10**6, "float64", test=True)
    assert found["tokens"] == 2000
    assert found["validation"] < 2.5
    assert found["test"] < 2.5
    assert found["test"] != found["validation"]


def test_the_beginning_of_a_text_has_whole_documents(dataset):
    cut = beginning(dataset.train, 199)
    assert (len(cut.tokens), cut.num_bytes) == (150, 300)
    assert len(beginning(dataset.train, 3).tokens) == 50
