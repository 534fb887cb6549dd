import dataclasses

import pytest

from newllm_core.analysis.criteria import (
    CRITERIA,
    STATUSES,
    cvfp_line,
    judge,
    judge_training,
    verdicts,
)
from newllm_core.config import Config, GateConfig, HealthyConfig

SPLITS = ("train", "validation")
# From where on figures are healthy, and beyond what they are degenerate: written out once more.
LIMITS = {
    "cvfp": (0.01, 0.03),
    "convergence": (0.5, 0.1),
    "global_attractor": (0.5, 0.95),
    "zero_solution": (0.2, 0.1),
    "explosion": (10.0, 1000.0),
    "distribution": (0.9, 0.5),
    "information_content": (0.5, 0.2),
    "identity_mapping": (0.9, 0.95),
    "token_dependency": (0.9, 0.98),
    "dynamics": (-0.01, 0.05),
    "memory": (1.25, 0.5),
}


def judged(section, value, split="train", config=None):
    return judge(section, split, {CRITERIA[section].figure: value}, config or Config())


@pytest.mark.parametrize("section", CRITERIA)
def test_statuses_meet_at_the_thresholds(section):
    healthy, degenerate = LIMITS[section]
    inward = 1e-6 if CRITERIA[section].high_is_good else -1e-6
    cases = [
        (healthy, "healthy", healthy),
        (healthy - inward, "weak", healthy),
        (degenerate, "weak", healthy),
        (degenerate - inward, "degenerate", degenerate),
    ]
    for value, status, threshold in cases:
        verdict = judged(section, value)
        assert (verdict["status"], verdict["threshold"]) == (status, threshold)
        assert verdict["message"] == CRITERIA[section].messages[STATUSES.index(status)]
        assert verdict["value"] == value
        assert verdict["healthy_if"].endswith(f" {healthy:g}")


def test_ranks_have_a_threshold_for_each_split():
    assert judged("information_content", 0.1, "train")["status"] == "degenerate"
    assert judged("information_content", 0.1, "validation")["status"] == "weak"
    assert judged("information_content", 0.079, "validation")["threshold"] == 0.08


def test_every_threshold_is_a_setting_with_a_reason():
    used = {c.gate_option(split) for c in CRITERIA.values() for split in SPLITS}
    assert used == {spec.name for spec in dataclasses.fields(GateConfig)}
    used = {criterion.healthy_option for criterion in CRITERIA.values()}
    assert used == {spec.name for spec in dataclasses.fields(HealthyConfig)}
    assert "above it contexts are copies" in CRITERIA["identity_mapping"].why()
    config = Config(gate=GateConfig(max_step_cosine=0.99), healthy=HealthyConfig(max_drift=1.0))
    assert judged("identity_mapping", 0.97, config=config)["status"] == "weak"
    assert judged("cvfp", 0.5, config=Config(healthy=HealthyConfig(max_drift=1.0)))["status"] == (
        "degenerate"
    )


def test_what_is_not_a_number_is_degenerate():
    for section in CRITERIA:
        assert judged(section, float("nan"))["status"] == "degenerate"
        assert judged(section, None)["status"] == "degenerate"


def trained(**changes):
    training = {"weight_change": 0.3, "vacuous_terms": [], "untrained_blocks": False}
    verdict = judge_training("validation", training | changes)
    return verdict["status"], verdict["message"]


def test_training_is_judged_by_what_moved():
    assert trained() == ("healthy", "blocks were trained")
    status, words = trained(weight_change=0.0, untrained_blocks=True)
    assert status == "degenerate"
    assert "no weight of the blocks moved" in words
    status, words = trained(untrained_blocks=True)
    assert status == "weak"
    assert "Phase 2 began with untrained blocks" in words
    status, words = trained(vacuous_terms=["ema-variance"])
    assert status == "weak"
    assert "no gradient from ema-variance" in words
    assert trained(weight_change=0.0, vacuous_terms=["a"])[0] == "degenerate"


def test_cvfp_comes_first_and_is_said_in_a_sentence():
    figures = {criterion.figure: LIMITS[name][0] for name, criterion in CRITERIA.items()}
    health = {split: figures for split in SPLITS}
    training = {"weight_change": 0.3, "vacuous_terms": [], "untrained_blocks": False}
    found = verdicts(health, training, Config())
    assert [(v["section"], v["split"]) for v in found[:2]] == [("cvfp", split) for split in SPLITS]

    def drifting(train, validation):
        values = {"train": train, "validation": validation}
        return {split: {"repeat_drift": {"third_to_fourth": v}} for split, v in values.items()}

    report = {"verdicts": found, "random_control": drifting(0.08, 0.05), **drifting(1e-5, 2e-5)}
    assert cvfp_line(report) == (
        "CVFP holds: from the third reading of a passage to the fourth, contexts change by 1e-05 / "
        "2e-05 of their norm (train / validation), untrained by 8e-02 / 5e-02"
    )
    found[1]["status"], found[1]["message"] = "degenerate", "CVFP does not hold: no fixed point"
    report["random_control"] = {"train": None, "validation": None}
    assert cvfp_line(report).startswith("CVFP does not hold: from the third")
