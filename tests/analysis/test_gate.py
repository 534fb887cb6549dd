import dataclasses
import json

import pytest
import torch

from newllm_core.analysis.quality_gate import check_gate, gate_figures, mean_cosine, measure_gate
from newllm_core.config import GateConfig
from newllm_core.errors import GateRefused

from . import planted

LENIENT = GateConfig(min_train_rank=0, min_val_rank=0, max_mean_cosine=1, min_norm=0)


def figures_of(model):
    return measure_gate(model, planted.random_probes(), planted.WARMUP, torch.device("cpu"))


def refusal(figures, config=None):
    with pytest.raises(GateRefused) as caught:
        check_gate(figures, config or GateConfig())
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gaussian_figures(num_rows=500, num_columns=20):
    generator = torch.Generator().manual_seed(0)
    return gate_figures(
        {
            split: torch.randn(num_rows, num_columns, generator=generator)
            for split in ("train", "validation")
        }
    )


def test_figures_of_gaussian_contexts():
    figures = gaussian_figures()
    json.dumps(figures, allow_nan=False)
    for split in ("train", "validation"):
        assert figures[split]["effective_rank_ratio"] == pytest.approx(0.99, abs=0.01)
        assert figures[split]["mean_cosine"] == pytest.approx(0, abs=0.01)
        assert figures[split]["norm_ratio"] == pytest.approx(1, abs=0.02)
        assert (figures[split]["num_tokens"], figures[split]["context_dim"]) == (500, 20)


def test_mean_cosine_is_that_of_all_pairs():
    contexts = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 1
    cosines = torch.nn.functional.cosine_similarity(contexts[:, None], contexts[None], dim=-1)
    left, right = torch.triu_indices(40, 40, offset=1)
    assert mean_cosine(contexts) == pytest.approx(float(cosines[left, right].mean()), abs=1e-6)


def test_a_healthy_model_passes():
    check_gate(figures_of(planted.healthy()), GateConfig())
    # The checkpoint keeps thresholds beside the figures.
    check_gate(figures_of(planted.healthy()) | {"thresholds": {}}, GateConfig())


def test_a_collapsed_model_is_refused_with_its_figures():
    message = refusal(figures_of(planted.collapsed_to_rank(3)))
    assert "train ER/D 0.09" in message
    assert "gate.min_train_rank 0.2" in message
    assert "Try phase1 with --reg covariance-ema" in message
    assert "mean cosine" not in message


def test_an_attractor_and_a_zero_solution_are_refused():
    message = refusal(figures_of(planted.attractor()))
    assert "validation contexts are nearly equal: mean cosine" in message
    assert "gate.max_mean_cosine 0.95" in message
    message = refusal(figures_of(planted.nearly_zero()))
    assert "train contexts are nearly zero: mean norm/sqrt(D) 0.001" in message
    assert "gate.min_norm 0.1" in message
    assert "ER/D" not in message


def test_every_failed_criterion_of_every_split_is_named():
    bad = {"effective_rank_ratio": 0.01, "mean_cosine": 0.99, "norm_ratio": 0.01}
    bad |= {"num_tokens": 500, "context_dim": 20}
    message = refusal({"train": bad, "validation": bad})
    assert message.count("train ") == 3
    assert message.count("validation ") == 3
    assert message.count("--set cell.layernorm_mix=1") == 1


def test_validation_alone_can_fail_and_has_its_own_threshold():
    figures = gaussian_figures()
    figures["validation"]["effective_rank_ratio"] = 0.1
    check_gate(figures, GateConfig())
    figures["validation"]["effective_rank_ratio"] = 0.07
    message = refusal(figures)
    assert "validation ER/D 0.070 is below gate.min_val_rank 0.08" in message
    assert "train ER/D" not in message


def test_too_few_tokens_are_told_from_a_collapse():
    assert "more text" in refusal(gaussian_figures(num_rows=4, num_columns=200))


def test_thresholds_can_be_opened_on_purpose():
    for model in (planted.collapsed_to_rank(1), planted.attractor(), planted.nearly_zero()):
        check_gate(figures_of(model), LENIENT)
    zeros = {split: torch.zeros(9, 4) for split in ("train", "validation")}
    check_gate(gate_figures(zeros), LENIENT)


@pytest.mark.parametrize("key", ["effective_rank_ratio", "mean_cosine", "norm_ratio"])
def test_what_is_not_a_number_does_not_pass(key):
    figures = gaussian_figures()
    figures["train"][key] = float("nan")
    assert "nan" in refusal(figures, LENIENT)


def test_a_checkpoint_without_figures_does_not_pass():
    assert "validation" in refusal({"train": gaussian_figures()["train"]})


def test_thresholds_are_the_configured_ones():
    figures = gaussian_figures()
    strict = dataclasses.replace(GateConfig(), min_train_rank=1.0)
    assert "gate.min_train_rank 1" in refusal(figures, strict)
