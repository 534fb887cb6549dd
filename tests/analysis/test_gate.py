"""What `analyze` calls degenerate is refused, with a hint that fits the failure."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from newllm_cli.commands.phase1 import phase1_summary
from newllm_cli.render import render_phase1
from newllm_core.analysis.analyze import analyze
from newllm_core.analysis.contexts import read_splits
from newllm_core.analysis.criteria import CRITERIA
from newllm_core.analysis.examiner import Examiner
from newllm_core.analysis.health import health_of, measure_health, weight_change
from newllm_core.analysis.quality_gate import check_gate, gate_failures
from newllm_core.analysis.sections import mean_cosine
from newllm_core.checkpoint.format import load, save
from newllm_core.config import Config, GateConfig, ModelConfig, Phase1Config, Phase2Config
from newllm_core.errors import GateRefused
from newllm_core.model.language_model import LanguageModel
from newllm_core.pipeline.opened import OpenedCheckpoint
from newllm_core.pipeline.runs import _pass_gate
from newllm_core.runtime.progress import Silent

from . import maps, planted

SPLITS = ("train", "validation")
TRAINED = {"weight_change": 0.3, "vacuous_terms": [], "untrained_blocks": False}
UNTRAINED = TRAINED | {"weight_change": 0.0}
HEALTHY = {
    "num_tokens": 5000,
    "context_dim": 32,
    "drift": 1e-5,
    "converged": 0.95,
    "effective_rank_ratio": 0.95,
    "mean_cosine": 0.02,
    "norm_ratio": 1.0,
    "live_dimensions": 1.0,
    "step_cosine": 0.4,
    "token_cosine": 0.4,
    "lyapunov_exponent": -0.2,
    "tokens_remembered": 4.0,
    "tokens_kept": 3.8,
}
CONFIG = Config(phase1=Phase1Config(dist_reg_weight=0.2))


def of(train=None, validation=None):
    return {"train": HEALTHY | (train or {}), "validation": HEALTHY | (validation or {})}


def refusal(health, training=TRAINED, config=CONFIG):
    with pytest.raises(GateRefused) as caught:
        check_gate(health, training, config)
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    return str(caught.value)


def measured(model):
    checkpoint = planted.checkpoint_of(model)
    return measure_health(model, checkpoint.probes, checkpoint.warmup, checkpoint.config)


def test_health_is_that_of_contexts_of_which_none_is_typical():
    """Contexts of one token, with norms of 1 to 9 and two thirds of their dimensions alive."""
    tokens = torch.randint(planted.VOCAB, (16, 60), generator=torch.Generator().manual_seed(1))
    rows = torch.randn(planted.VOCAB, 6, generator=torch.Generator().manual_seed(2)).double()
    rows[:, 4:] = 0
    rows = rows / rows.norm(dim=1, keepdim=True) * (1 + torch.arange(planted.VOCAB) % 9)[:, None]
    model = maps.Map(6, lambda c, x: rows[x[:, 0].long()])
    read = read_splits(model, {"train": tokens}, 8)
    found = health_of(Examiner(Config(), warmup=8).figures(model, read)["train"])
    contexts = rows[tokens[:, 8:]].flatten(0, 1)
    assert found["norm_ratio"] == pytest.approx(float(contexts.norm(dim=1).mean()) / 6**0.5)
    assert found["live_dimensions"] == pytest.approx(4 / 6)
    assert found["num_tokens"] == 16 * 52
    assert (found["drift"], found["converged"]) == (0, 1)


def test_the_mean_cosine_is_that_of_all_pairs():
    contexts = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 1
    cosines = torch.nn.functional.cosine_similarity(contexts[:, None], contexts[None], dim=-1)
    left, right = torch.triu_indices(40, 40, offset=1)
    wanted = pytest.approx(float(cosines[left, right].mean()), abs=1e-6)
    assert mean_cosine(contexts) == wanted
    assert mean_cosine(1e-20 * contexts) == wanted


def test_a_healthy_model_passes_with_figures_that_fit_json():
    health = measured(planted.healthy())
    assert json.loads(json.dumps(health, allow_nan=False)) == health
    assert set(health["train"]) == set(HEALTHY)
    check_gate(health, TRAINED, CONFIG)
    check_gate(of(), TRAINED, CONFIG)


def test_figures_that_an_older_version_did_not_measure_are_measured_now():
    checkpoint = planted.checkpoint_of(planted.healthy())
    health = measured(checkpoint.model)
    older = {split: dict(found) for split, found in health.items()}
    del older["train"]["tokens_kept"]
    checkpoint = dataclasses.replace(checkpoint, gate=older)
    options = dataclasses.replace(checkpoint.config.phase2, untrained_blocks=True)
    config = dataclasses.replace(checkpoint.config, phase2=options)
    assert _pass_gate(checkpoint, config, Silent())["train"] == health["train"]


def test_blocks_that_were_altered_in_the_file_are_measured_and_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    healthy = planted.checkpoint_of(planted.healthy())
    healthy = dataclasses.replace(healthy, gate=measured(healthy.model), tokenizer_json="")
    save(healthy, path, overwrite=False)
    _pass_gate(load(path), healthy.config, Silent())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name, tensor in tensors.items():
        tensor *= not (name.startswith("blocks.") and tensor.dim() == 2)
    save_file(tensors, path, metadata)
    with pytest.raises(GateRefused, match="tokens are ignored"):
        _pass_gate(load(path), healthy.config, Silent())


def test_a_run_that_an_older_version_finished_is_shown_without_what_it_did_not_measure(capsys):
    """`newllm phase1 --resume` where nothing is left to do."""
    older = of()
    for figures in older.values():
        del figures["tokens_kept"]
    checkpoint = dataclasses.replace(planted.checkpoint_of(planted.healthy()), gate=older)
    summary = phase1_summary(OpenedCheckpoint(checkpoint, Path("run.safetensors")))
    verdicts = summary["verdict"]["verdicts"]
    assert {v["section"] for v in verdicts if v["status"] == "degenerate"} <= {"training"}
    assert "memory" not in {v["section"] for v in verdicts}
    render_phase1(summary, Console(width=100))
    assert capsys.readouterr().out.count(" - ") == 2


def test_iterations_that_the_history_left_out_are_counted():
    history = [{"window": 1, "left_out": 5_000}, {"window": 2_500}]
    checkpoint = planted.checkpoint_of(planted.healthy())
    checkpoint = dataclasses.replace(checkpoint, gate=of(), history=history)
    summary = phase1_summary(OpenedCheckpoint(checkpoint, Path("run.safetensors")))
    assert summary["iterations"] == 5_002


@pytest.mark.parametrize(
    "make",
    [
        lambda: planted.collapsed_to_rank(2),
        planted.nearly_zero,
        planted.identity_mapping,
        planted.ignoring_tokens,
        planted.attractor,
        lambda: LanguageModel(ModelConfig(context_dim=64, embed_dim=64), planted.VOCAB),
    ],
)
def test_the_gate_refuses_exactly_what_analyze_calls_degenerate(make):
    checkpoint = planted.checkpoint_of(make())
    report = analyze(checkpoint, checkpoint_path="x", with_control=False)
    said = [v for v in report["verdicts"] if v["status"] == "degenerate"]
    health = measured(checkpoint.model)
    refused = gate_failures(health, report["training"], checkpoint.config)
    assert said
    assert refused == said


def test_a_copy_is_refused_though_its_rank_is_fine():
    message = refusal(measured(planted.identity_mapping()))
    assert "contexts copy the one before (step cosine train 0.99" in message
    assert ", above gate.max_step_cosine 0.95)" in message
    assert "ER/D" not in message


@pytest.mark.parametrize(
    ("figures", "said", "hint"),
    [
        ({"step_cosine": 0.982}, "0.982, above gate.max_step_cosine 0.95", "--init"),
        ({"token_cosine": 0.999}, "tokens are ignored (token cosine ", "--init-std 0.03"),
        ({"effective_rank_ratio": 0.05}, "0.05, below gate.min_", "larger --dist-reg-wei"),
        ({"mean_cosine": 0.99}, "all contexts are nearly equal (pair cosine ", "larger --dist"),
        ({"norm_ratio": 0.001}, "contexts are nearly zero (norm/sqrt(D) ", "layernorm_mix=1"),
        ({"drift": 0.4}, "CVFP does not hold (drift ", "--max-iterations 8"),
        ({"lyapunov_exponent": 0.4}, "0.4, above gate.max_exponent", "--init-std 0.0"),
        ({"tokens_kept": 0.0}, "tokens cannot be read back (tokens kept ", "--init-std"),
        ({"converged": 0.0}, "contexts do not settle (converged ", "--max-iterations 8"),
    ],
)
def test_every_failure_has_its_figure_its_threshold_and_a_hint(figures, said, hint):
    cell = {"layernorm_mix": 0.5}
    model = ModelConfig(init_std=0.01 if "token_cosine" in figures else 0.04)
    config = dataclasses.replace(CONFIG, cell=cell, model=model)
    for split in SPLITS:
        message = refusal(of(**{split: figures}), config=config)
        assert f" {split} " in message
        assert said in message
        assert hint in message.partition(". Try ")[2]


def test_the_objective_that_a_run_had_is_not_advised():
    copies = {"step_cosine": 0.982}
    assert CONFIG.phase1.objective == "reconstruction"
    assert refusal(of(copies)).endswith(". Try phase1 with --max-iterations 8")
    tokens = dataclasses.replace(CONFIG, phase1=Phase1Config(objective="tokens"))
    hint = "Try phase1 with --objective reconstruction, --max-iterations 8"
    assert refusal(of(copies), config=tokens).endswith(hint)


def test_hints_fit_the_failure():
    exploded = {"norm_ratio": 9.8e10, "mean_cosine": 0.999, "effective_rank_ratio": 0.01}
    message = refusal(of(exploded), config=dataclasses.replace(CONFIG, cell={"layernorm_mix": 0.0}))
    assert "contexts explode (norm/sqrt(D) train 9.8e+10, above gate.max_norm 1000)" in message
    # A larger start would make it worse, and no regularizer bounds it.
    assert message.endswith(". Try phase1 with --set cell.layernorm_mix=1")
    assert refusal(of(exploded)).endswith(". Try phase1 with a smaller --init-std")
    heavy = dataclasses.replace(CONFIG, phase1=Phase1Config(dist_reg_weight=0.99))
    message = refusal(of({"mean_cosine": 0.99}), config=heavy)
    assert message.endswith("Try phase1 with a smaller --dist-reg-weight than 0.99")
    none = dataclasses.replace(CONFIG, phase1=Phase1Config(reg="none", dist_reg_weight=0.2))
    assert "--reg covariance-ema" in refusal(of({"effective_rank_ratio": 0.01}), config=none)
    few = {"num_tokens": 4, "context_dim": 200, "effective_rank_ratio": 0.015}
    assert "more text" in refusal(of(few))


def test_every_failure_of_every_split_is_named_once():
    bad = {"effective_rank_ratio": 0.01, "mean_cosine": 0.99, "norm_ratio": 0.01}
    message = refusal(of(bad, bad))
    assert message.count("train 0.") == 3
    assert message.count("validation 0.") == 3
    assert (
        "(ER/D train 0.01 below gate.min_train_rank 0.2, validation 0.01 below gate.min_" in message
    )
    assert message.partition(". Try ")[2].count("larger --dist-reg-weight") == 1


def test_validation_alone_can_fail_and_has_its_own_threshold():
    check_gate(of(None, {"effective_rank_ratio": 0.1}), TRAINED, CONFIG)
    message = refusal(of(None, {"effective_rank_ratio": 0.07}))
    assert "rank has collapsed (ER/D validation 0.07, below gate.min_val_rank 0.08)" in message
    assert "train" not in message.partition(". Try")[0]


def test_untrained_blocks_must_be_asked_for_and_collapse_is_refused_all_the_same():
    message = refusal(of(), UNTRAINED)
    assert "untrained: no weight of the blocks moved" in message
    assert "--max-iterations 4" in message
    assert "--untrained-blocks" in message
    asked = dataclasses.replace(CONFIG, phase2=Phase2Config(untrained_blocks=True))
    check_gate(of(), UNTRAINED, asked)
    # CVFP is what training brings about; nothing else is waived.
    check_gate(of({"drift": 0.08}), UNTRAINED, asked)
    for bad in ({"step_cosine": 0.99}, {"effective_rank_ratio": 0.05}, {"norm_ratio": 1e9}):
        assert ", " in refusal(of(bad), UNTRAINED, asked)
    # Trained blocks are held to all of it.
    assert "CVFP does not hold" in refusal(of({"drift": 0.08}), config=asked)


def test_thresholds_are_the_configured_ones():
    strict = dataclasses.replace(CONFIG, gate=GateConfig(min_train_rank=1.0))
    assert "below gate.min_train_rank 1)" in refusal(of(), config=strict)
    lenient = dataclasses.replace(CONFIG, gate=GateConfig(max_step_cosine=1.0))
    check_gate(of({"step_cosine": 0.99}), TRAINED, lenient)


@pytest.mark.parametrize("figure", sorted({c.figure for c in CRITERIA.values()}))
def test_what_is_not_a_number_does_not_pass(figure):
    assert "train nan" in refusal(of({figure: float("nan")}))
    assert "no number" in refusal(of({figure: None}))


def test_opposite_contexts_are_as_few_as_equal_ones():
    report = analyze(planted.checkpoint_of(planted.healthy()), checkpoint_path="x")
    report["train"]["pairwise_cosine"]["mean"] = -0.99
    health = {"train": health_of(report["train"]), "validation": HEALTHY}
    assert "pair cosine train 0.99, above gate.max_mean_cosine 0.95" in refusal(health)


def test_weights_that_moved_are_told_from_those_that_did_not():
    model = LanguageModel(ModelConfig(context_dim=8, embed_dim=8), 20, seed=3)
    assert weight_change(model) == 0
    with torch.no_grad():
        model.embedding.weight.add_(1)
        model.heads()[0].weight.add_(1)
    assert weight_change(model) == 0
    before = (
        sum(float(p.detach().double().square().sum()) for p in model.blocks.parameters()) ** 0.5
    )
    with torch.no_grad():
        next(model.blocks.parameters()).view(-1)[0] += 0.5
    assert weight_change(model) == pytest.approx(0.5 / before, rel=1e-6)
