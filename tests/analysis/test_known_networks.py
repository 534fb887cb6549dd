"""Networks whose Lyapunov exponents are known."""

import math

import pytest
import torch

from newllm_core.analysis import examine
from newllm_core.analysis.lyapunov import kaplan_yorke_dimension, log_growths
from newllm_core.analysis.stepped import Stepped

from . import maps
from .maps import SMALL, linear_step, zeros


def spectrum_of(step, start, length=1_000):
    report = examine(step, torch.zeros(length, dtype=torch.long), start=start, config=SMALL)
    return report["train"]["lyapunov_spectrum"], report["train"]


def within(figure, exact, errors=4):
    return abs(figure["mean"] - exact) < errors * figure["stderr"] + 1e-9


def test_the_logistic_map_has_ln_2_within_its_error():
    start = torch.tensor([[0.3123]], dtype=torch.float64)
    found, figures = spectrum_of(lambda c, x: 4 * c * (1 - c), start, length=3_000)
    (exponent,) = found["exponents"]
    assert within(exponent, math.log(2))
    assert exponent["mean"] == pytest.approx(math.log(2), rel=0.01)
    assert within(figures["lyapunov_exponent"], math.log(2))
    assert found["kaplan_yorke_dimension"] == 1
    assert figures["token_dependency"]["mean_cosine"] == 1  # there is one token only
    assert figures["contributions"] is None


def test_the_henon_map_has_its_spectrum_and_its_dimension():
    def step(state, _):
        return 1 - 1.4 * state[0] ** 2 + state[1], 0.3 * state[0]

    found, _ = spectrum_of(step, (zeros(1) + 0.1, zeros(1)), length=6_000)
    larger, smaller = found["exponents"]
    assert within(larger, 0.41922)
    assert within(smaller, -1.62319)
    assert larger["mean"] + smaller["mean"] == pytest.approx(math.log(0.3), abs=1e-9)
    assert found["kaplan_yorke_dimension"] == pytest.approx(1.2583, abs=0.02)


@pytest.mark.parametrize("largest", [0.95, 1.02])
def test_a_linear_network_has_the_spectrum_of_its_matrix(largest):
    magnitudes = torch.linspace(largest, 0.4, 12).tolist()
    step = linear_step(maps.with_spectrum(magnitudes))
    recurrence = Stepped(step, zeros(12))
    tokens = maps.random_tokens(3, 600, 5)
    grown = log_growths(
        recurrence, tokens, recurrence.start(3), torch.stack([maps.draw(8, 12)] * 3)
    )[:, 300:].mean(dim=(0, 1))
    assert grown.tolist() == pytest.approx([math.log(m) for m in magnitudes[:8]], rel=0.01)


def test_an_orthogonal_network_forgets_nothing_and_a_contraction_all():
    orthogonal = torch.linalg.qr(maps.draw(10, 10)).Q
    tokens = maps.random_tokens(1, 900, 5)[0]
    kept = examine(linear_step(orthogonal), tokens, start=zeros(10), config=SMALL)["train"]
    exponents = [e["mean"] for e in kept["lyapunov_spectrum"]["exponents"]]
    assert exponents == pytest.approx([0.0] * 8, abs=1e-9)
    assert kept["echo_state"]["index"] == pytest.approx(1)
    assert kept["lyapunov_spectrum"]["kaplan_yorke_dimension"] is None  # 8 exponents of 10
    shrunk = examine(linear_step(0.8 * orthogonal), tokens, start=zeros(10), config=SMALL)["train"]
    assert shrunk["lyapunov_exponent"]["mean"] == pytest.approx(math.log(0.8))
    assert shrunk["lyapunov_spectrum"]["kaplan_yorke_dimension"] == 0
    # A token weighs 0.8 of what the one behind it does.
    by_lag = shrunk["contributions"]["by_lag"]
    assert by_lag[9] / by_lag[1] == pytest.approx(0.8**8, rel=0.5)


def test_kaplan_yorke_interpolates_where_the_sum_turns_negative():
    assert kaplan_yorke_dimension([0.9, 0.0, -14.6], 3) == pytest.approx(2 + 0.9 / 14.6)
    assert kaplan_yorke_dimension([-0.1], 5) == 0
    assert kaplan_yorke_dimension([0.2, 0.1], 2) == 2
    assert kaplan_yorke_dimension([0.2, 0.1], 3) is None
    assert math.isnan(kaplan_yorke_dimension([0.2, math.nan], 2))
