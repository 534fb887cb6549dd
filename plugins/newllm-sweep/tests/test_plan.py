"""Mistakes in the file of a sweep are found before anything runs."""

import pytest
from newllm_sweep.plan import read_plan
from stand_in import PLAN

from newllm_core.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("phase1.dist_reg_weight", "phase1.dist_weight"), "did you mean 'dist_reg_weight'"),
        (("high = 0.8", "high = 1.8"), "at most 1"),
        (("low = 0.1, ", ""), "list of choices"),
        (("analyze {phase1}", "analyze {phase2}"), "phase2"),
        (("analyze {phase1}", "generate {phase1}"), "'generate' is none of"),
        (("analyze {phase1}", "phase1"), "comes twice"),
        (("phase1.loss", "evaluate.loss"), "figure evaluate.loss"),
        (('"minimize"', '"less"'), "minimize or maximize"),
        (("trials = 12", "trials = 0"), "at least 1"),
        (("[search]", "[serach]"), "unknown serach"),
        (('"minimize"', '"minimize"\nconstraints = 3'), "figure constraints"),
        (("[search]\ntrials = 12", "search = 3"), "search is no table"),
        (("[search]\ntrials = 12", "constraints = 3"), "constraints is no table"),
        (("high = 0.8", 'high = "x"'), "list of choices"),
        (("low = 0.1, high = 0.8", "low = 0.0, high = 0.8, log = true"), "low > 0"),
        (("high = 0.8", "high = 0.8, log = 1"), "list of choices"),
        (("high = 6", "high = 6, step = 0.5"), "expected a whole number"),
        (("high = 6", "high = 6, step = 0"), "step > 0"),
        (("phase1 --data", "phase1 --out=x --data"), "no --out"),
        (("{phase1}", "{phase1.x}"), "a command before it"),
        (("[search]", '[pruning]\nrun = "phase1"\nfigure = "loss"\n[search]'), "EVENT.PLACE"),
        (("[search]", "[search"), "is not TOML"),
        (("trials = 12", 'sampler = "grid"'), "a grid takes a list"),
        (("trials = 12", 'trials = 12\nsampler = "grid"'), "leave it out"),
    ],
)
def test_a_mistake_in_the_plan_is_one_helpful_line(tmp_path, change, words):
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(PLAN.replace(*change))
    with pytest.raises(ConfigError) as caught:
        read_plan(plan_file)
    assert words in str(caught.value)
    assert str(plan_file) in str(caught.value)
