"""Two options that say one thing differently: none of them is chosen silently."""

import pytest

from .inside import CommandLine

SETTING = "--set=phase1.max_iterations=4"
TWICE = "is said twice"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("phase1 --num-layers 3 --layer-structure 2,3", ["model.layer_structure", TWICE]),
        ("phase1 --num-layers 3 --set model.layer_structure=2,3", ["model.layer_structure", TWICE]),
        (f"phase1 --max-iterations 3 {SETTING}", ["phase1.max_iterations", "'3'", "'4'"]),
        (f"phase1 {SETTING} --set phase1.max_iterations=3", ["phase1.max_iterations", "'3'"]),
        ("phase1 --max-iterations 3 --max-iterations 4", ["--max-iterations", "more than once"]),
        ("phase1 --tie-weights --no-tie-weights", ["--tie-weights/--no-tie-weights"]),
        ("phase1 --tie-weights --set model.tie_weights=no", ["model.tie_weights", TWICE]),
        ("phase1 --config preset:tiny --config preset:cvfp-16", ["--config", "more than once"]),
        ("prepare --document-separator a --set source.document_separator=b", [TWICE, "'a'", "'b'"]),
        ("prepare --tokenizer tokenizer.json --vocab-size 300", ["data.vocab_size", "leave one"]),
        ("prepare --tokenizer gpt2 --vocab-size 300", ["data.vocab_size", "'gpt2'"]),
        ("bench --cell gru --set model.cell=mingru", ["model.cell", "'gru'", "'mingru'"]),
        ("bench --batch 64 --set phase1.batch_tokens=32", ["phase1.batch_tokens", TWICE]),
        ("evaluate a.safetensors --split test --split train", ["--split", "more than once"]),
        ("plugins new spread --kind cell --kind regularizer", ["--kind", "more than once"]),
    ],
)
def test_is_one_line_and_code_2(monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = CommandLine(monkeypatch, capsys)(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert all(word in done.err for word in words), done.err
    assert not list(tmp_path.iterdir())


def test_repeatable_options_may_be_repeated(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = CommandLine(monkeypatch, capsys)(
        *("generate", "a.safetensors", "--stop", "x", "--stop", "y"),
        *("--set", "run.seed=1", "--set", "generation.top_k=2", "--seed", "1"),
    )
    assert done.code == 3  # it goes as far as the checkpoint, which is missing
    assert "a.safetensors" in done.err
