"""Dynamics against theory: maps whose exponents, echoes, sweeps and drifts are known."""

import math

import pytest
import torch
from recurrence import SHAPES, draw_tokens, make_model, sweep

from newllm_core.analysis.contexts import read_splits
from newllm_core.analysis.dynamics import drift, dynamics, repeat_drift
from newllm_core.analysis.echo_state import (
    converged_share,
    distances,
    echo_state,
    random_start,
    sweeps,
    text_errors,
    typical_errors,
)
from newllm_core.analysis.lyapunov import log_growths, lyapunov_exponent, lyapunov_spectra
from newllm_core.analysis.recurrence import DIFFERENCES, EXACT, ModelRecurrence
from newllm_core.analysis.summary import mean_and_error
from newllm_core.config import AnalysisConfig, ModelConfig
from newllm_core.model.language_model import LanguageModel

from . import maps


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tangent_is_the_jacobian_times_the_vector(shape):
    model = make_model(**SHAPES[shape])
    ids = draw_tokens(5)
    tokens = model.embed(ids)
    context, vector = maps.draw(5, 13), maps.draw(5, 13, seed=1)
    after, tangent = ModelRecurrence(model).push_forward(context, ids, vector)
    torch.testing.assert_close(after, model.step(context=context, token=tokens)[-1])
    for row in range(5):

        def update(c, row=row):
            return model.step(context=c[None], token=tokens[row : row + 1])[-1][0]

        jacobian = torch.autograd.functional.jacobian(update, context[row])
        torch.testing.assert_close(tangent[row], jacobian @ vector[row])


def exponent_of(model, *, length=400, passages=6, vocab=7):
    tokens = maps.random_tokens(passages, length, vocab)
    start, vector = (maps.draw(passages, model.context_dim, seed=seed) for seed in (0, 1))
    return lyapunov_exponent(log_growth(model, tokens, start.clamp(-1, 1), vector))


def log_growth(model, tokens, start, vector):
    return log_growths(model, tokens, start, vector[:, None])[..., 0]


@pytest.mark.parametrize("magnitudes", [[0.9, 0.5, -0.3], [1.2, 1.0, 0.1], [0.5, -0.4, 0.1]])
def test_a_linear_map_has_the_exponent_of_its_largest_eigenvalue(magnitudes):
    found = exponent_of(maps.linear(maps.with_spectrum(magnitudes), shift=0.1), length=600)
    assert found["mean"] == pytest.approx(math.log(max(magnitudes)), abs=1e-6)


def test_an_exact_contraction_has_its_rate_and_no_error():
    found = exponent_of(maps.linear(0.8 * torch.eye(4).double()))
    assert found["mean"] == pytest.approx(math.log(0.8))
    assert found["stderr"] == pytest.approx(0, abs=1e-12)


def test_what_a_delay_line_loses_is_no_shrinking():
    """One slow number, and a line of 24 places behind which a disturbance is lost."""
    shift = torch.zeros(25, 25, dtype=torch.float64)
    shift[0, 0] = 0.99
    shift[torch.arange(2, 25), torch.arange(1, 24)] = 1.0
    tokens, vector = maps.random_tokens(6, 64, 3), maps.draw(6, 25)
    growth = log_growth(maps.linear(shift), tokens, torch.zeros_like(vector), vector)
    found = lyapunov_exponent(growth, delay=24)
    assert found["mean"] == pytest.approx(math.log(0.99))
    assert lyapunov_exponent(growth)["mean"] < 2 * math.log(0.99)


@pytest.mark.parametrize("seed", range(5))
def test_the_standard_error_covers_a_rate_that_depends_on_the_token(seed):
    rates = torch.tensor([0.5, 0.8, 0.9, 1.1], dtype=torch.float64)
    model = maps.Map(3, lambda c, x: rates[x.long()] * c)
    tokens = maps.random_tokens(20, 300, 4, seed=seed)
    growth = log_growth(model, tokens, maps.draw(20, 3), maps.draw(20, 3, seed=seed))
    found = lyapunov_exponent(growth)
    exact = float(rates.log().mean())
    assert abs(found["mean"] - exact) < 4 * found["stderr"]
    # The error of a mean over 20 passages of 300 - 37 independent tokens.
    expected = float(rates.log().std(correction=0)) / (20 * 263) ** 0.5
    assert found["stderr"] == pytest.approx(expected, rel=0.6)


@pytest.mark.parametrize("derivative", [EXACT, DIFFERENCES])
def test_the_logistic_map_is_as_chaotic_as_it_is_known_to_be(derivative):
    """Its Jacobian -4c is another one everywhere: the exponent is ln 2 on the trajectory only."""
    model = maps.Map(1, lambda c, x: 1 - 2 * c.square())
    model.derivative = derivative
    # Not from the fixed point -1, where the exponent is ln 4.
    growth = log_growth(
        model, maps.random_tokens(32, 500, 7), maps.draw(32, 1).tanh(), maps.draw(32, 1)
    )
    found = lyapunov_exponent(growth)
    assert found["mean"] == pytest.approx(math.log(2), abs=0.005)
    assert found["stderr"] < 0.002


def test_a_vector_that_is_still_turning_has_half_of_the_change_as_its_error():
    growth = torch.zeros(64, 16, dtype=torch.float64)
    growth[:, 9:] = 1.0  # of the 14 that count, the second half
    assert lyapunov_exponent(growth) == {"mean": 0.5, "stderr": 0.5}


def test_a_map_without_a_past_shrinks_by_the_smallest_number():
    found = exponent_of(maps.Map(2, lambda c, x: x.repeat(1, 2)))
    assert found["mean"] < -60
    assert math.isfinite(found["mean"])


def test_a_spectrum_is_counted_once_vectors_have_found_their_directions():
    shrink = torch.tensor([0.9, 0.8], dtype=torch.float64)
    turning = maps.Map(2, lambda c, x: shrink * c + x)
    read = read_splits(turning, {"train": maps.random_tokens(1, 260, 3)}, 2)
    found = lyapunov_spectra(turning, read, AnalysisConfig(), seed=0)
    exponents = found["train"]["exponents"]
    wanted = shrink.log().tolist()
    assert [exponent["mean"] for exponent in exponents] == pytest.approx(wanted, abs=1e-10)


def test_one_passage_has_an_error_too():
    assert mean_and_error(torch.arange(16.0)[None])["stderr"] > 0
    assert mean_and_error(torch.ones(1, 1)) == {"mean": 1.0, "stderr": 0.0}


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_the_echo_of_a_contraction_fades_by_its_rate(rate):
    model = maps.linear(rate * torch.eye(3).double(), shift=1.0)
    tokens = maps.random_tokens(4, 40, 5)
    path = maps.trajectory(model, tokens, maps.draw(4, 3))
    found = echo_state(distances(model, tokens, path, random_start(path[:, 0], 1)))
    expected = [rate**step for step in range(41)]
    assert found["distances_by_step"] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert found["stderr_by_step"] == pytest.approx([0.0] * 41, abs=1e-9)
    assert found["index"] == found["distances_by_step"][-1]


def test_equal_starts_have_no_echo_and_a_rotation_keeps_it():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    tokens = maps.random_tokens(3, 9, 5)
    path = maps.trajectory(maps.linear(turn), tokens, maps.draw(3, 2))
    same = distances(maps.linear(turn), tokens, path, path[:, 0])
    assert echo_state(same)["distances_by_step"] == [0.0] * 10
    other = distances(maps.linear(turn), tokens, path, random_start(path[:, 0], 1))
    assert echo_state(other)["index"] == pytest.approx(1)


def test_random_starts_are_as_long_as_contexts():
    start = random_start(5 * maps.draw(200, 8), seed=3)
    assert float(start.norm(dim=1).std()) == pytest.approx(0, abs=1e-9)
    assert float(start.norm(dim=1).mean()) == pytest.approx(5 * 8**0.5, rel=0.1)


def test_errors_of_sweeps_are_those_of_whole_texts_that_are_swept():
    """Every position of a text is a start: then errors are those of the parallel engine."""
    config = ModelConfig(context_dim=24, embed_dim=24, init_std=0.1)
    model = LanguageModel(config, 30, seed=3).double().requires_grad_(False)
    length, count = 60, 12
    text = maps.random_tokens(1, length, 30)[0]
    recurrence = ModelRecurrence(model)
    path = maps.trajectory(recurrence, text[None], model.start(1))[0]
    swept = torch.zeros(length, 24, dtype=torch.float64)
    for number in range(1, count + 1):
        swept = sweep(model, text, swept, path[0])
        # Contexts that are not exact by now, each reached from zero in `number` tokens.
        begins = torch.arange(1, length - number + 1)
        windows = torch.stack([text[b : b + number] for b in begins])
        paths = torch.stack([path[b : b + number + 1] for b in begins])
        apart = distances(recurrence, windows, paths, torch.zeros_like(paths[:, 0]))
        expected = (swept - path[1:])[number:].norm() / path[1:][number:].norm()
        assert text_errors(apart, paths)[number] == pytest.approx(float(expected), rel=1e-9)
        assert float((swept - path[1:])[:number].norm()) == pytest.approx(0, abs=1e-12)


def test_a_contraction_needs_as_many_sweeps_as_predicted():
    model = maps.linear(0.8 * torch.eye(3).double())
    tokens = maps.random_tokens(4, 60, 5)
    path = maps.trajectory(model, tokens, torch.ones(4, 3).double())
    path = torch.ones_like(path)
    still = maps.Map(3, lambda c, x: 1 + 0.8 * (c - 1))
    apart = distances(still, tokens, path, torch.zeros(4, 3).double())
    found = sweeps(typical_errors(apart, path), text_errors(apart, path), math.log(0.8))
    assert found["measured_text"] == found["measured"]
    assert found["predicted"]["1%"] == pytest.approx(math.log(100) / -math.log(0.8))
    assert found["measured"]["1%"] == math.ceil(found["predicted"]["1%"])
    assert found["measured"]["0.01%"] == math.ceil(found["predicted"]["0.01%"])


def test_tokens_converge_once_their_squared_error_is_below_that_of_phase_1():
    # Half of the dimensions forget a start at 0.8 per token; the others were never wrong.
    rates = torch.tensor([0.8, 0.0]).double()
    still = maps.Map(2, lambda c, x: 1 + rates * (c - 1))
    tokens, path = maps.random_tokens(4, 60, 5), torch.ones(4, 61, 2).double()
    enough = math.log(2 * 1e-3) / (2 * math.log(0.8))
    shares = [
        converged_share(still, tokens, path, count=count, converged_below=1e-3)
        for count in (enough, enough - 1, 60, 61, None)
    ]
    assert shares == [1.0, 0.0, 1.0, None, None]


def test_chaos_has_no_number_of_sweeps():
    found = sweeps([1.0, 0.9, 1.1], [1.0, 0.9, 1.1], 0.2)
    assert found["predicted"] == found["measured"] == {"1%": None, "0.01%": None}
    # An error that comes back was not over.
    back = sweeps([1.0, 0.001, 0.5, 0.001], [1.0, 0.5, 0.5, float("nan")], -1.0)
    assert back["measured"]["1%"] == 3
    assert back["measured_text"]["1%"] is None


def test_the_typical_error_is_a_mean_of_logarithms():
    path = torch.ones(2, 2, 1).double()
    apart = torch.tensor([[1.0, 0.1], [1.0, 0.001]]).double()
    assert typical_errors(apart, path) == pytest.approx([1.0, 0.01])
    assert text_errors(apart, path) == pytest.approx([1.0, (0.0100010 / 2) ** 0.5], rel=1e-4)


def test_a_map_of_period_two_drifts_after_odd_passages_only():
    flip = maps.linear(-torch.eye(2).double(), shift=0.0)
    flip.start = lambda count: torch.ones(count, 2, dtype=torch.float64)
    odd = repeat_drift(drift(flip, maps.random_tokens(3, 5, 4), readings=4))
    assert odd["by_repeat"] == pytest.approx([2.0, 2.0, 2.0])
    even = repeat_drift(drift(flip, maps.random_tokens(3, 6, 4), readings=4))
    assert even["by_repeat"] == [0.0, 0.0, 0.0]


def test_contexts_that_overflow_while_a_passage_is_repeated_have_no_drift():
    growing = maps.linear(1e50 * torch.eye(2).double(), shift=1.0)
    found = repeat_drift(drift(growing, maps.random_tokens(3, 4, 4), readings=4))
    assert math.isnan(found["third_to_fourth"])


def test_cvfp_is_judged_by_the_third_reading_and_the_fourth():
    drift_PR = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.6, 0.5, 0.4, 0.3]]).double()
    assert repeat_drift(drift_PR)["third_to_fourth"] == pytest.approx(0.3)


def test_the_drift_of_a_contraction_shrinks_by_its_rate_per_reading():
    model = maps.linear(0.9 * torch.eye(2).double(), shift=1.0)
    tokens = maps.random_tokens(5, 8, 6)
    moved = drift(model, tokens, readings=5)
    # Relative to contexts that settle, so the ratio comes close to 0.9^8.
    assert float(moved[0, 3] / moved[0, 2]) == pytest.approx(0.9**8, rel=0.05)


@pytest.mark.parametrize(("passages", "converged"), [(4, 1.0), (1, 0.0)])
def test_starts_that_a_map_cannot_go_on_from_are_those_of_other_passages(passages, converged):
    fragile = maps.Map(4, lambda c, x: torch.where(c < 0, torch.nan, 1e-4 * c) + x)
    tokens = {"train": maps.random_tokens(passages, 40, 5) + 1}
    found = dynamics(
        fragile, read_splits(fragile, tokens, 8), AnalysisConfig(), converged_below=1e-3, seed=0
    )
    assert found["train"]["converged_ratio"] == converged


def test_splits_side_by_side_are_those_alone():
    model = ModelRecurrence(make_model())
    tokens = {"train": draw_tokens(4, 60), "validation": draw_tokens(4, 60, seed=1)}
    config = AnalysisConfig(dynamics_passages=3, dynamics_steps=40)
    both, alone = (
        dynamics(model, read_splits(model, texts, 8), config, converged_below=1e-3, seed=0)
        for texts in (tokens, {"train": tokens["train"]})
    )
    assert both["train"]["lyapunov_exponent"] == pytest.approx(
        alone["train"]["lyapunov_exponent"], rel=1e-6
    )
    assert both["train"]["sweeps"]["error_by_sweep"] == pytest.approx(
        alone["train"]["sweeps"]["error_by_sweep"]
    )
    assert both["validation"] != both["train"]
    assert len(both["train"]["echo_state"]["distances_by_step"]) == 41


def test_an_explosion_is_not_hidden():
    growing = maps.linear(3.0 * torch.eye(2).double())
    found = exponent_of(growing)
    assert found["mean"] == pytest.approx(math.log(3))
