import pytest

from newllm_core.analysis.convergence import convergence
from newllm_core.analysis.thresholds import THRESHOLDS
from newllm_core.analysis.verdicts import judge, judge_convergence
from newllm_core.config import GateConfig

from . import planted


@pytest.mark.parametrize("section", THRESHOLDS)
def test_statuses_meet_at_the_thresholds(section):
    rule = THRESHOLDS[section]
    inward = 1e-6 if rule.high_is_good else -1e-6
    cases = [
        (rule.healthy, "healthy", rule.healthy),
        (rule.healthy - inward, "weak", rule.healthy),
        (rule.degenerate, "weak", rule.healthy),
        (rule.degenerate - inward, "degenerate", rule.degenerate),
    ]
    for value, status, threshold in cases:
        verdict = judge(section, "train", value)
        assert (verdict["status"], verdict["threshold"]) == (status, threshold)
        assert verdict["message"] == rule.messages[status]
        assert verdict["value"] == value


def test_what_is_not_a_number_is_degenerate():
    assert all(judge(s, "train", float("nan"))["status"] == "degenerate" for s in THRESHOLDS)


def test_known_models_are_judged_as_they_should_be():
    assert judge("information_content", "train", 0.86)["status"] == "healthy"  # untrained
    assert judge("information_content", "train", 0.15)["status"] == "degenerate"
    assert judge("identity_mapping", "train", 0.951)["status"] == "degenerate"
    assert judge("identity_mapping", "train", 0.4)["status"] == "healthy"
    assert judge("token_dependency", "train", 0.45)["status"] == "healthy"


def test_what_the_gate_refuses_is_degenerate():
    gate = GateConfig()
    assert THRESHOLDS["information_content"].degenerate == gate.min_train_rank
    assert THRESHOLDS["global_attractor"].degenerate == gate.max_mean_cosine
    assert THRESHOLDS["zero_solution"].degenerate == gate.min_norm


def judged(history, vacuous=()):
    return judge_convergence("validation", convergence(history, vacuous))


def test_a_good_history_is_healthy():
    verdict = judged(planted.good_history())
    assert (verdict["status"], verdict["value"]) == ("healthy", 0.9)


def test_contexts_that_never_settle_are_degenerate():
    history = [{"converged_ratio": {"train": 1.0, "validation": 0.03}, "weight_change": 0.5}]
    assert judged(history)["status"] == "degenerate"


def test_no_history_is_weak_and_says_so():
    verdict = judged([])
    assert (verdict["status"], verdict["value"]) == ("weak", None)
    assert "untrained" in verdict["message"]


def test_a_vacuous_term_outweighs_a_perfect_ratio():
    verdict = judged(planted.good_history(), ["ema-variance"])
    assert verdict["status"] == "degenerate"
    assert "ema-variance" in verdict["message"]


def test_weights_that_never_moved_are_degenerate_whatever_converged():
    history = [
        {"converged_ratio": {"train": 1.0, "validation": 1.0}, "weight_change": 0.0}
        for _ in range(2)
    ]
    verdict = judged(history)
    assert (verdict["status"], verdict["value"]) == ("degenerate", 0.0)
    assert "never moved" in verdict["message"]


def test_missing_keys_are_tolerated():
    assert judged([{}])["status"] == "weak"
    assert judged([{"converged_ratio": {"train": 1.0}}])["status"] == "weak"
    assert judged([{"converged_ratio": 0.8}, {"iteration": 2}])["value"] == 0.8


def test_a_history_with_a_number_that_is_none_fits_json():
    found = convergence(
        [{"terms": {"cvfp": float("nan"), "other": 1.0}, "x": (1, float("inf"))}], []
    )
    assert found["history"] == [{"terms": {"cvfp": None, "other": 1.0}, "x": [1, None]}]
