"""The kit for cells passes what is right, and says of each wrong what is wrong."""

import pytest

from newllm_core.plugins.registry import CELLS
from newllm_core.settings import make_section
from newllm_core.testing import ConformanceError, check_cell
from tests.testing.cells import (
    WRONG,
    Constants,
    DeclaredOnce,
    Frozen,
    Leaky,
    RateOptions,
    Reservoir,
    Scalar,
)

OWN = [name for name, (first, *_) in CELLS.plugins().items() if first.is_own]
VARIANTS = [
    *((name, {}) for name in OWN),
    ("residual", {"hidden_dim": 7}),
    ("residual", {"depth": 3, "init": "he"}),
    ("residual", {"layernorm_mix": 0.5, "init": "xavier"}),
    ("residual", {"layernorm_mix": 0.0}),
    ("residual", {"residual": "learned", "residual_coefficient": 0.5}),
    ("residual", {"residual_coefficient": 0.5}),
    ("gated", {"hidden_dim": 7, "layernorm_mix": 0.5}),
    ("gated", {"gate_bias": -1.0, "init": "orthogonal"}),
    ("mogrifier", {"rounds": 0}),
    ("mogrifier", {"rounds": 3, "init": "orthogonal"}),
    ("gru", {"init": "orthogonal"}),
    ("mingru", {"init": "xavier"}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_built_ins_conform(name, options):
    found = CELLS.load(name)
    check_cell(found, make_section(found.Options, "cell", options))


@pytest.mark.parametrize("right", [Leaky, Constants, DeclaredOnce, Reservoir, Frozen, Scalar])
def test_what_is_right_passes(right):
    check_cell(right)


def test_options_are_passed_on():
    check_cell(Constants, RateOptions(0.5))
    with pytest.raises(ConformanceError, match="shapes: the new context is not finite"):
        check_cell(Constants, RateOptions(float("inf")))


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_explained(wrong, line):
    with pytest.raises(ConformanceError) as caught:
        check_cell(wrong)
    message = str(caught.value)
    assert message.startswith(f"{wrong.__module__}:{wrong.__name__} fails ")
    assert any(part.strip().startswith(line) for part in message.splitlines()), message
