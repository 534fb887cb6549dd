"""Dynamics and memory beside reservoirpy, where its definitions are ours."""

import math

import numpy as np
import pytest
import torch

from newllm_core.analysis.echo_state import distances, echo_state
from newllm_core.analysis.lyapunov import log_growths, lyapunov_exponent
from newllm_core.analysis.token_memory import CHANCE, label, token_memory

from . import maps


@pytest.fixture
def nodes():
    """Import them where they are used: every worker of pytest collects this file."""
    return pytest.importorskip("reservoirpy.nodes", reason="reservoirpy is not installed")


@pytest.fixture
def observables(nodes):
    return pytest.importorskip("reservoirpy.observables")


def linear_reservoir(nodes, matrix, inlet):
    return nodes.Reservoir(
        W=matrix.numpy(),
        Win=inlet.numpy()[:, None],
        bias=np.zeros(len(matrix)),
        activation="identity",
        lr=1.0,
    )


def test_lags_of_a_delay_line_are_those_of_its_memory_capacity(nodes, observables):
    """A binary input is a token of two kinds: a lag is worth 1 where it is there, else 0.

    But for the share of chance in ours, which bounds how certain a reading of one bit can be.
    """
    length, lags = 4, 8
    matrix = torch.diag(torch.ones(length - 1), -1).double()
    inlet = torch.eye(length)[0].double()
    tokens = maps.random_tokens(16, 250, 2)
    ours = maps.Map(length, lambda c, x: c @ matrix.T + (2 * x - 1) * inlet)
    path = maps.trajectory(ours, tokens, ours.start(16))[:, 1:]
    found = token_memory(label(path[:, 20:], tokens, lags=lags + 1, frequent=64))["by_lag"]
    peer = observables.memory_capacity(
        linear_reservoir(nodes, matrix, inlet) >> nodes.Ridge(ridge=1e-8),
        k_max=lags,
        as_list=True,
        series=(2.0 * tokens.reshape(-1, 1) - 1).numpy(),
    )
    # Their first lag is the token before the last; ours is the last.
    assert found[1:] == pytest.approx(peer.tolist(), abs=0.02)
    worth = 1 + math.log2(1 - CHANCE / 2)
    assert sum(found[1:]) == pytest.approx((length - 1) * worth, abs=0.01)


def test_the_exponent_of_a_linear_reservoir_is_that_of_its_spectral_radius(observables):
    matrix = maps.with_spectrum([0.85, -0.6, 0.4, 0.2, 0.1])
    model = maps.linear(matrix, shift=0.3)
    start, vector = (maps.draw(4, 5, seed=seed) for seed in (0, 1))
    growth = log_growths(model, maps.random_tokens(4, 400, 5), start, vector[:, None])
    found = lyapunov_exponent(growth[..., 0])["mean"]
    assert found == pytest.approx(math.log(observables.spectral_radius(matrix.numpy())), abs=1e-6)


def test_the_echo_of_a_tanh_reservoir_is_what_its_two_runs_leave(nodes):
    reservoir = nodes.Reservoir(20, sr=0.9, lr=1.0, input_scaling=0.5, seed=3)
    series = np.random.default_rng(0).integers(0, 3, size=(30, 1)).astype(float)
    reservoir.initialize(series)
    matrix, inlet = (torch.from_numpy(np.asarray(_dense(w))) for w in (reservoir.W, reservoir.Win))
    model = maps.Map(20, lambda c, x: torch.tanh(c @ matrix.T + x @ inlet.T))
    starts = torch.stack([maps.draw(20, seed=seed) for seed in (0, 1)])
    runs = []
    for start in starts:
        reservoir.state = {"out": start.numpy()}
        runs.append(torch.from_numpy(np.asarray(reservoir.run(series))))
    tokens = torch.from_numpy(series[:, 0]).long()[None]
    path = maps.trajectory(model, tokens, starts[:1])
    torch.testing.assert_close(path[0, 1:], runs[0])
    found = echo_state(distances(model, tokens, path, starts[1:]))["distances_by_step"]
    expected = (runs[0] - runs[1]).norm(dim=1) / (starts[0] - starts[1]).norm()
    assert found[1:] == pytest.approx(expected.tolist(), rel=1e-9)


def _dense(weights):
    return weights.toarray() if hasattr(weights, "toarray") else weights
