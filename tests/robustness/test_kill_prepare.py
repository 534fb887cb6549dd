"""`prepare` that is killed at random moments leaves what was there, and runs again cleanly."""

import random
import time

import pytest

from newllm_core.config import Config, DataConfig, RunConfig
from newllm_core.data.prepare import prepare
from tests.cli.conftest import write_corpus
from tests.robustness.runs import SERVER, names


def write(corpus, out, seed):
    config = DataConfig(
        source="text-file",
        input=str(corpus),
        vocab_size=400,
        val_fraction=0.04,
        val_token_policy="keep",
    )
    source, run = {"document_separator": "\n\n"}, RunConfig(seed=seed)
    prepare(Config(data=config, source=source, run=run), out, overwrite=True)


def start(corpus, out, seed):
    process = SERVER.Process(target=write, args=(corpus, out, seed))
    process.start()
    return process


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, what two seeds make of it, and how long that takes in a process of its own."""
    folder = tmp_path_factory.mktemp("prepared")
    corpus = write_corpus(folder / "corpus.txt", documents=400)
    made = []
    for seed in (0, 1):
        begun = time.monotonic()
        process = start(corpus, folder / str(seed), seed)
        process.join()
        assert process.exitcode == 0
        made.append(contents(folder / str(seed)))
    assert made[0] != made[1]
    return corpus, made, time.monotonic() - begun


def kill_and_prepare(place, folder, *, kills, chance):
    """Kill so often; how many kills came before the end. `folder/data` is one or the other."""
    corpus, (old, new), seconds = place
    out = folder / "data"
    write(corpus, out, 0)
    killed = unfinished = 0
    while killed < kills:
        process = start(corpus, out, 1)
        process.join(chance.uniform(0, 1.1 * seconds))
        process.kill()
        process.join()
        killed += process.exitcode == -9
        unfinished += "data" not in names(folder) or contents(out) == old
        if "data" in names(folder):  # else it was killed between two renamings
            assert contents(out) in (old, new)
        write(corpus, out, chance.choice((0, 1)))
        assert names(folder) == ["data"]
        assert contents(out) in (old, new)
        write(corpus, out, 0)
    process = start(corpus, out, 1)
    process.join()
    assert contents(out) == new
    assert names(folder) == ["data"]
    return unfinished


def test_killed_twice(place, tmp_path):
    _, (_, new), _ = place
    kill_and_prepare(place, tmp_path, kills=2, chance=random.Random(0))
    assert contents(tmp_path / "data") == new


@pytest.mark.slow
def test_killed_twenty_five_times(place, tmp_path, capsys):
    unfinished = kill_and_prepare(place, tmp_path, kills=25, chance=random.Random(1))
    with capsys.disabled():
        print(f"\nprepare: 25 kills, {unfinished} before it was done; nothing was torn or left")
    assert unfinished > 10
