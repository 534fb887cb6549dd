"""What is said twice and differently, or for nothing, is an error before any work is done."""

from pathlib import Path

import pytest

from newllm_core.errors import ConfigError
from newllm_core.pipeline.opened import open_checkpoint

from .inside import save_checkpoint

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
        ("phase1 --delay-tokens 4", ["model.delay_tokens has no effect: model.delay_dims is 0"]),
        ("phase1 --slow-decays 0.5", ["model.slow_decays has no effect: model.slow_dims is 0"]),
        ("phase2 a --batch-tokens 9 --out a.safetensors", ["phase2.freeze_context is false"]),
        ("phase2 a --set phase2.candidates_share=1", ["phase2.candidates is 0"]),
        ("phase2 a --freeze-context --bptt 1", ["phase2.bptt has no", "freeze_context is true"]),
        ("phase2 a --freeze-context --num-streams 2", ["phase2.num_streams has no effect"]),
        ("phase2 a --freeze-context --no-train-embeddings", ["phase2.train_embeddings has no"]),
        ("phase1 --set cell.depht=3", ["unknown key cell.depht of cell 'residual'", "'depth'"]),
        (
            "phase1 --set objective.foo=1",
            ["key objective.foo of objective 'reconstruction'"],
        ),
        ("phase1 --reg none --set regularizer.foo=1", ["regularizer.foo", "has no options"]),
        ("bench --cell gru --set model.cell=mingru", ["model.cell", "'gru'", "'mingru'"]),
        ("bench --batch 64 --set phase1.batch_tokens=32", ["phase1.batch_tokens", TWICE]),
        ("evaluate a.safetensors --split test --split train", ["--split", "more than once"]),
        ("plugins new spread --kind cell --kind regularizer", ["--kind", "more than once"]),
    ],
)
def test_is_one_line_and_code_2(newllm, tmp_path, arguments, words):
    done = newllm(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert all(word in done.err for word in words), done.err
    assert not list(tmp_path.iterdir())


def test_files_and_the_environment_may_say_what_has_no_effect_here(newllm, monkeypatch, tmp_path):
    monkeypatch.setenv("NEWLLM_MODEL_DELAY_TOKENS", "4")
    (tmp_path / "a.toml").write_text("[model]\nslow_decays = [0.5]\n")
    done = newllm("phase1", "--config=a.toml", "--data=none")
    assert (done.code, "no prepared data at none" in done.err) == (3, True)


def test_repeatable_options_may_be_repeated(newllm):
    done = newllm(
        *("generate", "a.safetensors", "--stop", "x", "--stop", "y"),
        *("--set", "run.seed=1", "--set", "generation.top_k=2", "--seed", "1"),
    )
    assert done.code == 3  # it goes as far as the checkpoint, which is missing
    assert "a.safetensors" in done.err


OURS = "ours.safetensors"
OF_A_CHECKPOINT = (
    f"analyze {OURS}",
    f"compare {OURS}",
    f"expand {OURS}",
    f"evaluate {OURS} --text book.txt",
    f"generate {OURS} --max-tokens 1",
    f"contexts {OURS} --text book.txt --out contexts.npy",
)


@pytest.fixture
def with_checkpoint(newllm, tmp_path):
    save_checkpoint(tmp_path / OURS)
    (tmp_path / "book.txt").write_text("the cat sat")
    return newllm


@pytest.mark.parametrize("command", OF_A_CHECKPOINT)
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cell.depth=3", "cell.depth is none in this checkpoint and cannot become 3"),
        ("cell.depht=3", "key cell.depht of this checkpoint; did you mean 'depth'?"),
        ("model.num_layers=7", "model.layer_structure is 1"),
        ("phase1.convergence_threshold=.5", "cannot become 0.5: leave it out"),
    ],
)
def test_a_checkpoint_decides_what_it_is_made_of(
    with_checkpoint, tmp_path, command, setting, words
):
    done = with_checkpoint(*command.split(), "--set", setting)
    assert done.code == 2
    assert words in done.err.splitlines()[-1]
    assert {file.name for file in tmp_path.rglob("*.*")} == {OURS, "book.txt"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("phase1.learning_rate=1", "phase1.learning_rate is 0.002 in this checkpoint"),
        ("objective.typo=1", "unknown key objective.typo of this checkpoint"),
        ("regularizer.momentum=.5", "of this checkpoint"),
    ],
)
def test_phase2_refuses_what_would_have_no_effect(with_checkpoint, setting, words):
    done = with_checkpoint("phase2", OURS, "--set", setting)
    assert done.code == 2
    assert words in done.err.splitlines()[-1]


def test_what_is_so_already_may_be_said_and_files_are_for_many_commands(
    with_checkpoint, tmp_path, monkeypatch
):
    (tmp_path / "project.toml").write_text("[cell]\ndepth = 3\n")
    monkeypatch.setenv("NEWLLM_MODEL_CONTEXT_DIM", "99")
    said = "--set cell.depth=none --set cell.layernorm_mix=1 --set model.tie_weights=no"
    generate = [*OF_A_CHECKPOINT[4].split(), *said.split(), "--config", "project.toml"]
    assert with_checkpoint(*generate).code == 0
    opened = open_checkpoint(OURS)
    with pytest.raises(ConfigError, match=r"cell\.depth is none in this checkpoint"):
        opened.generate(max_tokens=1, settings={"cell": {"depth": 3}})
    assert isinstance(opened.generate(max_tokens=1, settings={"cell": {"depth": None}}), str)


@pytest.mark.parametrize(
    "command",
    [
        f"phase2 {OURS} --out ./{OURS} --overwrite",
        f"phase2 {OURS} --out {OURS} --resume",
        f"expand {OURS} --out {OURS} --overwrite",
        f"contexts {OURS} --text book.txt --out {OURS} --overwrite",
    ],
)
def test_what_is_read_is_not_replaced(with_checkpoint, tmp_path, command):
    before = (tmp_path / OURS).read_bytes()
    done = with_checkpoint(*command.split())
    assert done.code == 2
    assert "is the checkpoint that is read: choose another" in done.err.splitlines()[-1]
    assert (tmp_path / OURS).read_bytes() == before


@pytest.mark.parametrize("command", ["analyze", "compare"])
def test_a_page_takes_no_checkpoints_place(with_checkpoint, tmp_path, command):
    before = (tmp_path / OURS).read_bytes()
    done = with_checkpoint(command, OURS, "--html", f"./{OURS}", "--overwrite")
    assert done.code == 2
    assert f"--html {OURS}: end it in .html, as {Path(OURS).stem}.html" in done.err
    assert (tmp_path / OURS).read_bytes() == before
