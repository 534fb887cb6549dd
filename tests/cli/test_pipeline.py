import json

import pytest

from tests.cli.conftest import STEPS, TINY, run
from tests.open_gate import OPEN


def test_prepare_reports_both_splits(trained):
    _, results = trained
    report = results["prepare"].json
    assert report["vocab_size"] == 350
    assert (
        report["splits"]["train"]["documents"] + report["splits"]["validation"]["documents"] == 60
    )
    share = report["splits"]["validation"]["bytes"] / report["splits"]["train"]["bytes"]
    assert 0.15 < share < 0.40


def test_phase1_trains_every_term_and_measures_the_gate(trained):
    folder, results = trained
    report = results["phase1"].json
    assert report["checkpoint"] == "runs/phase1.safetensors"
    assert report["iterations"] == 3
    assert report["vacuous_terms"] == []
    assert report["last_iteration"]["weight_change"] > 0.01
    assert 0.2 < report["gate"]["validation"]["effective_rank_ratio"] <= 1
    lines = (folder / "runs/phase1.metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["iteration"] * 3


def test_phase2_learns_and_figures_agree(trained):
    _, results = trained
    report = results["phase2"].json
    untrained, *_, last = report["epochs"]
    assert last["validation"]["loss"] < untrained["validation"]["loss"] - 0.5
    for split in ("train", "validation"):
        assert len(report[split]["heads"]) == 1
        head = report[split]["heads"][0]
        assert head["loss"] == pytest.approx(report[split]["loss"])
        assert 0 < report[split]["accuracy"] < 1
        assert report[split]["perplexity"] == pytest.approx(2.718281828 ** report[split]["loss"])


def test_expand_keeps_the_last_head_and_phase2_trains_all(trained):
    _, results = trained
    before = results["phase2"].json["validation"]
    expanded = results["expand"].json["validation"]
    assert len(expanded["heads"]) == 2
    assert expanded["heads"][-1]["loss"] == pytest.approx(before["loss"], rel=1e-6)
    assert expanded["heads"][0]["loss"] > expanded["heads"][-1]["loss"]
    heads = results["heads"].json["validation"]["heads"]
    assert heads[0]["loss"] < expanded["heads"][0]["loss"]


def test_analyze_has_the_documented_shape(trained):
    folder, _ = trained
    result = run("analyze", "runs/phase1.safetensors", "--json", "--threads=1", cwd=folder)
    assert result.code == 0
    report = result.json
    assert report["schema"] == 1
    assert len(report["convergence"]["history"]) == 3
    for split in (report["train"], report["validation"], *report["random_control"].values()):
        assert split["num_tokens"] == report["train"]["num_tokens"]
        assert split["context_dim"] == 16
        assert 1 <= split["effective_rank"] <= 16
        assert split["effective_rank_ratio"] == pytest.approx(split["effective_rank"] / 16)
    assert report["train"] != report["random_control"]["train"]
    sections = {verdict["section"] for verdict in report["verdicts"]}
    assert {"convergence", "global_attractor", "zero_solution", "distribution"} <= sections
    assert {"information_content", "identity_mapping", "token_dependency"} <= sections


def test_analyze_prints_a_table_of_80_columns_without_colour(trained):
    folder, _ = trained
    result = run("analyze", "runs/phase1.safetensors", "--threads=1", cwd=folder, COLUMNS="80")
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b[" not in result.out
    assert "effective rank" in result.out.lower()


def test_analyze_any_matrix(trained):
    folder, _ = trained
    result = run(
        "analyze", "runs/phase1.safetensors", "--tensor=embedding.weight", "--json", cwd=folder
    )
    assert result.code == 0
    assert result.json["shape"] == [350, 16]
    assert result.json["effective_rank_ratio"] > 0.9  # random rows use all their dimensions


def test_untrained_checkpoint_is_the_control(trained):
    folder, _ = trained
    made = run(
        *("phase1", "--data=data", *TINY),
        *("--max-iterations=0", "--out=runs/control.safetensors", "--json"),
        cwd=folder,
    )
    assert made.code == 0
    assert made.json["iterations"] == 0
    report = run("analyze", "runs/control.safetensors", "--json", "--threads=1", cwd=folder).json
    trained_as_given, control = report["train"], report["random_control"]["train"]
    assert trained_as_given["effective_rank"] == pytest.approx(control["effective_rank"])


def test_published_algorithm_is_called_vacuous_everywhere(trained):
    folder, _ = trained
    made = run(
        *("phase1", "--data=data", *TINY),
        *("--reg=ema-variance", "--set=regularizer.gradient=detached", "--engine=online"),
        "--objective=cvfp",
        *("--set=phase1.start=zero", "--max-tokens=100", "--max-iterations=3"),
        *("--out=runs/published.safetensors", "--json"),
        cwd=folder,
    )
    assert made.code == 0
    assert "regularizer" in made.json["vacuous_terms"]
    assert made.json["last_iteration"]["weight_change"] == 0
    assert made.json["last_iteration"]["sweep_terms"]["cvfp"] == 0
    assert "nothing was trained" in made.err
    assert "vacuous term: regularizer" in made.err
    report = run("analyze", "runs/published.safetensors", "--json", "--threads=1", cwd=folder).json
    assert "regularizer" in report["convergence"]["vacuous_terms"]
    verdict = next(v for v in report["verdicts"] if v["section"] == "convergence")
    assert verdict["status"] == "degenerate"


def test_gate_refuses_with_its_own_code_and_writes_nothing(trained):
    folder, _ = trained
    result = run(
        *("phase2", "runs/phase1.safetensors", "--min-val-rank=1", "--out=runs/no.safetensors"),
        cwd=folder,
    )
    assert result.code == 6
    assert len(result.err.strip().splitlines()) == 1
    assert "validation" in result.err
    assert not (folder / "runs/no.safetensors").exists()


def test_frozen_phase2_records_its_thresholds(trained):
    folder, _ = trained
    result = run(
        *("phase2", "runs/phase1.safetensors", "--freeze-context", "--epochs=1"),
        *("--min-train-rank=0", "--out=runs/frozen.safetensors", "--json"),
        cwd=folder,
    )
    assert result.code == 0
    from newllm_core.checkpoint.format import load

    assert load(folder / "runs/frozen.safetensors").gate["thresholds"]["min_train_rank"] == 0


def test_phase1_ends_with_a_verdict_and_can_be_held_to_it(trained):
    folder, results = trained
    verdict = results["phase1"].json["verdict"]
    assert verdict["succeeded"] is True
    assert verdict["reason"] is None
    sections = [v["section"] for v in verdict["verdicts"] if v["split"] == "validation"]
    assert sections[:3] == ["cvfp", "convergence", "training"]
    copying = ("phase1", "--data=data", *TINY)
    copying = (*copying, "--max-iterations=2", "--init-std=0.00001", "--learning-rate=1e-7")
    failed = run(*copying, "--out=runs/copy.safetensors", cwd=folder)
    # It can be studied, so it is no error; but nobody has to guess whether it worked.
    assert failed.code == 0
    assert "phase 1 FAILED" in failed.out
    assert "contexts copy the one before (step cosine train 1, validation 1" in failed.out
    assert "phase 1 succeeded" not in failed.out
    held = run(*copying, "--require-healthy", "--out=runs/copy2.safetensors", cwd=folder)
    assert held.code == 6
    assert "phase 1 failed: " in held.err
    assert (folder / "runs/copy2.safetensors").exists()
    refused = run("phase2", "runs/copy.safetensors", "--out=runs/no.safetensors", cwd=folder)
    assert refused.code == 6
    assert "step cosine" in refused.err


def test_untrained_blocks_are_asked_for_by_name_and_remembered(trained):
    folder, _ = trained
    made = run(
        *("phase1", "--data=data", *TINY),
        *("--cell=mogrifier", "--max-iterations=0", "--out=runs/start.safetensors"),
        cwd=folder,
    )
    assert made.code == 0
    assert "phase 1 FAILED: untrained: no weight of the blocks moved" in made.out
    allowed = run(
        *("phase1", "--data=data", *TINY, "--set=phase2.untrained_blocks=true"),
        *("--cell=mogrifier", "--max-iterations=0", "--require-healthy"),
        "--out=runs/allowed.safetensors",
        cwd=folder,
    )
    assert allowed.code == 0
    assert "phase 1 trained nothing: a start for phase 2" in allowed.out
    start = ("phase2", "runs/start.safetensors", "--epochs=1", *STEPS)
    refused = run(*start, "--out=runs/no.safetensors", cwd=folder)
    assert refused.code == 6
    assert "--untrained-blocks" in refused.err
    assert run(*start, "--untrained-blocks", "--out=runs/lm.safetensors", cwd=folder).code == 0
    report = run("analyze", "runs/lm.safetensors", "--json", "--threads=1", cwd=folder).json
    assert report["training"]["untrained_blocks"] is True
    assert report["training"]["weight_change"] > 0
    verdict = next(v for v in report["verdicts"] if v["section"] == "training")
    assert (verdict["status"], "Phase 2 began with untrained" in verdict["message"]) == (
        "weak",
        True,
    )
    # So short a training leaves dead dimensions; that blocks were untrained is known by now.
    again = ("phase2", "runs/lm.safetensors", "--epochs=0", "--threads=1", *OPEN)
    assert run(*again, "--out=runs/lm2.safetensors", cwd=folder).code == 0


def test_heads_for_every_block_without_a_phase2_in_between(trained):
    folder, _ = trained
    made = run("expand", "runs/phase1.safetensors", "--out=runs/four.safetensors", cwd=folder)
    assert made.code == 0
    assert "none of them trained" in made.err
    assert made.out == ""  # there is no figure to show
    assert run("generate", "runs/four.safetensors", cwd=folder).code == 3
    heads = run(
        *("phase2", "runs/four.safetensors", "--epochs=1", *STEPS),
        *("--out=runs/direct.safetensors", "--json"),
        cwd=folder,
    )
    assert heads.code == 0
    assert len(heads.json["validation"]["heads"]) == 2


def test_the_memory_is_told_epoch_by_epoch(trained):
    folder, results = trained
    told = [line for line in results["phase2"].err.splitlines() if line.startswith("memory after")]
    assert len(told) == 3
    assert "tokens remembered (validation probes" in told[0]
    shown = run("analyze", "runs/phase2.safetensors", "--threads=1", cwd=folder).out
    assert "As Phase 1 wrote it down when it trained" in shown
    assert "epoch of" in shown
    assert shown.splitlines()[3].startswith("CVFP ")
