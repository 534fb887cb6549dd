import math

import pytest

from newllm_core.checkpoint import format as checkpoints
from newllm_core.data.prepared import open_dataset
from newllm_core.evaluation.splits import evaluate_splits
from tests.data.cases import run as prepare

from .inside import save_checkpoint, save_dataset

FIGURES = {"loss", "loss_stderr", "perplexity", "accuracy", "bits_per_byte"}
FIGURES |= {"bits_per_byte_stderr", "bits_per_character", "word_perplexity"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    data, tokenizer = save_dataset(folder)
    return save_checkpoint(folder / "two.safetensors", tokenizer, num_heads=2, dataset=data), data


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """A folder with what should not be mixed up."""
    folder = tmp_path_factory.mktemp("mistakes")
    save_checkpoint(folder / "phase1.safetensors", phase="phase1")
    save_checkpoint(folder / "other.safetensors")
    save_dataset(folder)
    (folder / "empty.txt").write_text("")
    (folder / "latin1.txt").write_bytes("der\nKäse".encode("latin-1"))
    return folder


def test_by_default_the_data_of_the_checkpoint_as_phase2_reports_it(newllm, made):
    path, data = made
    found = newllm("evaluate", path, "--json", "--precision=float32").json
    model = checkpoints.load(path).model
    expected = evaluate_splits(model, open_dataset(data), head_weights=[0.5, 1.2])
    assert (found["schema"], found["checkpoint"], found["data"]) == (1, str(path), str(data))
    for split in ("train", "validation"):
        assert {key: found[split][key] for key in expected[split] if key != "heads"} == {
            key: value for key, value in expected[split].items() if key != "heads"
        }
        for head, other in zip(found[split]["heads"], expected[split]["heads"], strict=True):
            assert {key: head[key] for key in other} == other
            assert set(other) == FIGURES


def test_words_are_counted_with_and_without_line_ends(newllm, made):
    path, data = made
    text = (data.parent / "validation.txt").read_text(encoding="utf-8")
    found = newllm("evaluate", path, "--json").json["validation"]
    assert found["num_words"] == len(text.split()) + text.count("\n")
    assert found["num_whitespace_words"] == len(text.split())
    for figures in (found, *found["heads"]):
        nats = figures["loss"] * found["num_tokens"]
        for key, words in (
            ("word_perplexity", len(text.split()) + text.count("\n")),
            ("whitespace_word_perplexity", len(text.split())),
        ):
            assert figures[key] == pytest.approx(math.exp(nats / words))
    said = f"perplexity {found['whitespace_word_perplexity']:.2f} per word of "
    shown = newllm("evaluate", path).out
    assert f"validation: {said}{found['num_whitespace_words']:,} without line ends" in shown


def test_a_text_has_the_figures_of_the_same_text_prepared(newllm, made):
    path, data = made
    prepared = newllm("evaluate", path, "--json").json["validation"]
    file = data.parent / "validation.txt"
    found = newllm("evaluate", path, "--text", file, "--json").json
    assert found["file"] == str(file)
    assert found["text"] == prepared


def test_one_split_is_evaluated_whole(newllm, made, tmp_path):
    path, data = made
    found = newllm("evaluate", path, "--split=train", "--json", "--precision=float32").json
    assert found["train"]["num_tokens"] == len(open_dataset(data).train.tokens)
    assert "validation" not in found
    with_test = tmp_path / "data"
    tokenizer = data / "tokenizer.json"
    (tmp_path / "text.txt").write_text("the cat|the mat|a dog|the log", encoding="utf-8")
    prepare(
        *(with_test, {"document_separator": "|"}),
        **{"source": "text-file", "input": tmp_path / "text.txt", "tokenizer": tokenizer},
        **{"test_fraction": 0.2, "val_token_policy": "keep"},
    )
    shown = newllm("evaluate", path, f"--data={with_test}", "--split=test")
    figures = newllm("evaluate", path, f"--data={with_test}", "--split=test", "--json").json
    assert "│ test " in shown.out
    assert figures["test"]["num_bytes"] == open_dataset(with_test).test.num_bytes
    assert "no split 'test'" in newllm("evaluate", path, "--split=test").err


def test_the_table_has_every_head_and_all_together(newllm, made):
    path, data = made
    shown = newllm("evaluate", path, "--text", data.parent / "validation.txt")
    found = newllm("evaluate", path, "--text", data.parent / "validation.txt", "--json").json
    rows = [line.split("│") for line in shown.out.splitlines() if line.startswith("│")]
    assert [row[2].strip() for row in rows] == ["1", "2", "all"]
    for row, figures in zip(rows, [*found["text"]["heads"], found["text"]], strict=True):
        assert float(row[3]) == pytest.approx(figures["loss"], abs=1e-4)
        assert float(row[7]) == pytest.approx(figures["bits_per_byte"], abs=1e-4)
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_table_has_bits_per_character_where_nothing_separates_words(newllm, made, tmp_path):
    path, _ = made
    (tmp_path / "ja.txt").write_text("吾輩は猫である。名前はまだ無い。\n" * 3, encoding="utf-8")
    shown = newllm("evaluate", path, "--text", "ja.txt").out
    found = newllm("evaluate", path, "--text", "ja.txt", "--json").json["text"]
    assert "per word" not in shown
    assert "bits/char" in shown
    rows = [line.split("│") for line in shown.splitlines() if line.startswith("│")]
    for row, figures in zip(rows, [*found["heads"], found], strict=True):
        assert float(row[5]) == pytest.approx(figures["bits_per_character"], abs=1e-4)
    assert found["whitespace_word_perplexity"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["phase1.safetensors"], 3, ["phase1", "no trained head", "newllm phase2"]),
        (["missing.safetensors"], 3, ["missing.safetensors"]),
        (["other.safetensors", "--data=data"], 3, ["another tokenizer"]),
        (["other.safetensors"], 3, ["None is gone", "--data DIR"]),
        (["other.safetensors", "--text=none.txt"], 3, ["none.txt", "no such file"]),
        (["other.safetensors", "--text=empty.txt"], 3, ["empty.txt is empty"]),
        (["other.safetensors", "--text=latin1.txt"], 3, ["latin1.txt is not UTF-8", "line 2"]),
        (["other.safetensors", "--text=data", "--data=data"], 2, ["--data and --text"]),
        (["other.safetensors", "--text=empty.txt", "--split=test"], 2, ["--split and --text"]),
        (["other.safetensors", "--text=empty.txt", "--set=run.sede=1"], 2, ["run.sede"]),
    ],
)
def test_a_mistake_is_one_helpful_line(newllm, mistaken, monkeypatch, arguments, code, words):
    monkeypatch.chdir(mistaken)
    done = newllm("evaluate", *arguments)
    assert (done.code, done.out) == (code, "")
    message = [line for line in done.err.splitlines() if not line.startswith("evaluating")]
    assert len(message) == 1
    assert all(word in message[0] for word in words)
