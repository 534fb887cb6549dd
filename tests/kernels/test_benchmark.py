"""`benchmarks.kernels`: every form that there is can be timed beside its twin."""

import pytest

from benchmarks.kernels import CASES, compare, head_pass, step_pass
from newllm_core.kernels import door


@pytest.mark.parametrize("form", door.FORMS, ids=lambda form: form.operation)
def test_a_form_and_its_twin_take_turns(form):
    plain, cases = CASES[form.operation]
    assert cases
    rows = compare(head_pass(8, 6, 30, form.function), head_pass(8, 6, 30, plain), rounds=3)
    assert [row["part"] for row in rows] == ["forward", "backward", "both"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["plain"] / row["form"])
    assert rows[2]["form"] > max(rows[0]["form"], rows[1]["form"]) > 0


def test_a_whole_step_of_a_preset_is_timed():
    plain, _ = CASES["cross-entropy"]
    (row,) = compare(step_pass("cvfp-16", plain), step_pass("cvfp-16", plain), rounds=1)
    assert row["part"] == "step"
    assert row["form"] > 0
