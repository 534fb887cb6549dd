"""Training, tuning, the cache and the script itself."""

import dataclasses
import math

import pytest
import torch

from benchmarks import language_modelling
from benchmarks.comparison import neural
from benchmarks.comparison.budget import Budget
from benchmarks.comparison.cache import Cache
from benchmarks.comparison.comparison import TUNING_SEED, Comparison
from benchmarks.comparison.contestant import beginning
from benchmarks.comparison.counting import Ngram
from benchmarks.comparison.neural import PEERS, NeuralPeer, phase2
from benchmarks.comparison.report import spread, table
from benchmarks.comparison.tuning import DROPOUTS, RATES, at_edge, descend, shown
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import AnalysisConfig, Config, DataConfig, Phase2Config
from newllm_core.data.prepare import prepare
from newllm_core.data.probe import choose_probes
from newllm_core.errors import ConfigError, DivergedError
from newllm_core.training.phase2 import candidates as sampling
from newllm_core.training.phase2.candidates import draw_candidates
from newllm_core.training.phase2.run import train_phase2


@pytest.mark.parametrize("name", sorted(PEERS))
def test_peers_learn(name, conditions, monkeypatch):
    monkeypatch.setattr("benchmarks.comparison.neural.phase2", small_steps)
    contestant = NeuralPeer(name, conditions)
    assert abs(contestant.identity(contestant.start)["parameters"] - 49_000) <= 0.05 * 49_000
    found = contestant.train(contestant.start, 0, 4000, "float32", test=True)
    # Guessing by frequency costs 5.3 bits a token, and a token is two bytes.
    assert found["validation"] < 2.5
    assert found["test"] < 2.5
    assert found["tokens"] == pytest.approx(4000, abs=60)
    assert found["epochs"] == 2


def small_steps(setting, budget):
    return dataclasses.replace(phase2(setting, budget), num_streams=4, bptt=16)


def test_what_is_trained_as_newllm_is_what_phase_2_trains(conditions):
    """The same weights after the same steps as the package's own pipeline."""
    contestant = NeuralPeer("newllm", conditions)
    # Both draw what is dropped, but not in the same order.
    nothing = {"dropout": 0.0, "input_dropout": 0.0}
    setting = contestant.start | nothing | {"weight_decay": 0.3}
    config = phase2(setting, Budget(2, 2000))
    start = contestant.build(setting, 5).model
    texts = {
        "train": conditions.dataset.train.tokens,
        "validation": conditions.dataset.train.tokens,
    }
    probes, warmup = choose_probes(texts, AnalysisConfig(probe_tokens=64, probe_passages=2))
    checkpoint = Checkpoint(
        model=start, objective={}, config=Config(model=start.config), tokenizer_json="{}",
        phase="phase1", probes=probes, warmup=warmup,
    )  # fmt: skip
    whole = dataclasses.replace(checkpoint.config, phase2=config, run=conditions.run)
    theirs = train_phase2(checkpoint, conditions.dataset, whole)
    ours = contestant.train(setting, 5, 4000, "float32", test=False)
    expected = theirs.results["validation"]["bits_per_byte"]
    assert ours["validation"] == pytest.approx(expected, rel=1e-5)
    assert ours["best_epoch"] == theirs.results["best_epoch"]


def test_the_weights_of_the_best_epoch_are_the_ones_tested(conditions, monkeypatch):
    reached = iter([2.0, 1.0, 3.0])
    kept = []

    def judge(peer, text, **options):
        kept.append(peer.embedding.weight.detach().clone())
        return next(reached)

    monkeypatch.setattr("benchmarks.comparison.training.bits_per_byte", judge)
    monkeypatch.setattr(
        "benchmarks.comparison.neural.bits_per_byte",
        lambda peer, text, **options: float(torch.equal(peer.embedding.weight, kept[1])),
    )
    contestant = NeuralPeer("gru", conditions)
    found = contestant.train(contestant.start, 0, 6000, "float32", test=True)
    assert (found["best_epoch"], found["validation"], found["test"]) == (2, 1.0, 1.0)


@pytest.mark.parametrize("name", ["newllm", "gru", "transformer"])
def test_the_seed_decides_a_run(name, conditions):
    contestant = NeuralPeer(name, conditions)
    setting = contestant.start | {"dropout": 0.3, "input_dropout": 0.1}
    runs = [contestant.train(setting, seed, 600, "float32", test=False) for seed in (0, 0, 1)]
    bits = [figures["validation"] for figures in runs]
    assert bits[0] == bits[1] != bits[2]


@pytest.mark.parametrize("name", ["newllm", "lstm"])
def test_every_peer_may_start_from_counts_of_what_it_reads(name, conditions):
    contestant = NeuralPeer(name, conditions)
    seen = []
    for start in contestant.axes["embeddings"]:
        setting = contestant.start | {"embeddings": start, "learning_rate": 1e-9}
        seen.append(contestant.train(setting, 0, 600, "float32", test=False)["validation"])
    # Hardly anything is learnt at this rate: what differs is the start.
    assert abs(seen[0] - seen[1]) > 1e-3


@pytest.mark.parametrize("name", ["newllm", "gru", "transformer"])
def test_every_peer_may_be_mixed_with_counts_of_what_it_reads(name, conditions):
    contestant = NeuralPeer(name, conditions)
    found = []
    for pairs in contestant.axes["bigrams"]:
        setting = contestant.start | {"bigrams": pairs, "learning_rate": 1e-9}
        found.append(contestant.train(setting, 0, 600, "float32", test=False)["validation"])
    assert found[1] < found[0] - 0.05


@pytest.mark.parametrize("name", ["newllm", "transformer"])
def test_every_peer_may_compare_with_candidates_in_four_fifths_of_its_steps(
    name, conditions, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        sampling,
        "draw_candidates",
        lambda *given: drawn.append(given[1:3]) or draw_candidates(*given),
    )
    contestant = NeuralPeer(name, conditions)
    steps = -(-6000 // 1024)
    for candidates in (0, 8):
        setting = contestant.start | {"candidates": candidates}
        contestant.train(setting, 0, 6000, "float32", test=False)
        assert len(drawn) == (math.ceil(0.8 * steps) if candidates else 0)
    assert set(drawn) == {(conditions.dataset.info.vocab_size, 8)}
    assert {speed["candidates"] for speed in contestant.speeds} == {0, 2048}


def test_the_speed_is_of_as_many_steps_with_candidates_as_a_run_has(conditions, monkeypatch):
    seen = []
    monkeypatch.setattr(
        neural, "train_peer", lambda *given, **options: seen.append(given[2]) or {"rates": [1, 2]}
    )
    assert NeuralPeer("gru", conditions).rate({"candidates": 8}, "float32") == 2
    steps = 2 * neural.STEPS_PER_ROUND
    sampled = sum(step < seen[0].candidates_share * steps for step in range(steps // 2, steps))
    whole_run = Phase2Config().candidates_share * neural.STEPS_PER_ROUND
    assert sampled == math.ceil(whole_run) < neural.STEPS_PER_ROUND


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
