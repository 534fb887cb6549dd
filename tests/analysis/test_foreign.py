"""Networks in files that others made: torch.nn weights, reservoirs, files with a step."""

import io
from dataclasses import asdict

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from newllm_cli.render_compare import render_compare
from newllm_core.analysis import examine
from newllm_core.analysis.compare import compare
from newllm_core.analysis.foreign.opening import examine_file, open_network
from newllm_core.analysis.report.compare_page import compare_page
from newllm_core.analysis.report.figures import number
from newllm_core.analysis.token_memory import _correlation, label, memory_capacity
from newllm_core.config import AnalysisConfig, Config
from newllm_core.errors import ConfigError, InputError
from newllm_core.settings import Settings

from . import maps

SMALL = Config(analysis=AnalysisConfig(memory_lags=4, num_pairs=200, dynamics_steps=40))
CPU = torch.device("cpu")
LAYERS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "ids.npy"
    np.save(path, maps.random_tokens(1, 500, 9)[0].numpy())
    return path


def write(path, kind, prefix="rnn.", **more):
    torch.manual_seed(3)
    network = LAYERS[kind](5, 6, num_layers=2)
    weights = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    save_file({**weights, "embed.weight": torch.randn(9, 5), **more}, path)
    return network


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_of_torch_read_as_the_module_does(tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    network = write(path, kind)
    opened = open_network(path, kind, embedding=None, seed=0, device=CPU)
    ids = maps.random_tokens(3, 7, 9)
    state = opened.start
    state = tuple(s.repeat(3, 1, 1) for s in state) if kind == "lstm" else state.repeat(3, 1, 1)
    for token in ids.unbind(1):
        state = opened.step(state, token)
    whole = network(load_file(path)["embed.weight"][ids.T])[1]
    whole = whole if kind == "lstm" else (whole,)
    for found, exact in zip(state if kind == "lstm" else (state,), whole, strict=True):
        torch.testing.assert_close(found.transpose(0, 1), exact)
    twin = opened.control(opened.start, ids[:1, 0])
    assert not torch.equal(twin[0], opened.step(opened.start, ids[:1, 0])[0])


@pytest.mark.parametrize(
    ("kind", "embedding", "more", "words"),
    [
        ("gru", None, {}, "do not fit here; they are those of --as lstm"),
        ("lstm", None, {"rnn.weight_hr_l0": torch.zeros(3, 6)}, "but weight_hr_l0, which is not"),
        ("lstm", "other", {}, "none of that name"),
        ("lstm", None, {"second": torch.zeros(4, 5)}, "which tensor"),
        ("lstm", None, {"embed.weight": torch.zeros(9, 4)}, r"no tensor \[V, 5\].*torch\.eye\(5\)"),
        ("lstm", None, {"dec.weight_ih_l0": torch.zeros(24, 5)}, r"2 networks .*'dec\.', 'rnn\."),
        (None, None, {}, "give --as"),
        ("reservoir", None, {}, "no tensors W and Win"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, kind, embedding, more, words):
    path = tmp_path / "weights.safetensors"
    write(path, "lstm", **more)
    with pytest.raises((ConfigError, InputError), match=words):
        open_network(path, kind, embedding=embedding, seed=0, device=CPU)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "tensors", "words"),
    [
        ("gru", {"weight_ih_l0": random(18, 5)}, "no weights of one torch.nn.GRU"),
        ("gru", {"weight_ih_l1": random(18, 5)}, "no weights of one torch.nn.GRU"),
        ("gru", {"weight_ih_l0": random(18), "weight_hh_l0": random(18, 6)}, "do not fit"),
        ("rnn", {"weight_ih_l0": random(0, 5), "weight_hh_l0": random(0, 0)}, "do not fit"),
        (
            "rnn",
            {"weight_ih_l0": random(6, 5), "weight_hh_l0": random(6, 6), "bias_hh_l0": random(6)},
            "bias_ih_l0",
        ),
        (
            "rnn",
            {
                **{"weight_ih_l0": random(6, 5), "weight_hh_l0": random(6, 6)},
                "weight_hh_l1": random(6, 6),
            },
            "weight_hh_l1",
        ),
        ("reservoir", {"W": random(4, 4) * 1j, "Win": random(4, 5)}, "complex64, expected real"),
        ("reservoir", {"W": torch.tensor(1.0), "Win": random(4, 5)}, "expected \\[N, N\\]"),
        ("reservoir", {"W": random(0, 0), "Win": random(0, 5)}, "expected \\[N, N\\]"),
        ("reservoir", {"W": random(4, 4), "Win": random(4, 5), "bias": random(3)}, "bias has 3"),
        ("reservoir", {"W": random(4, 4), "Win": random(4, 5), "lr": random(3)}, "lr 3, expected"),
    ],
)
def test_weights_of_odd_shapes_are_refused(tmp_path, kind, tensors, words):
    path = tmp_path / "weights.safetensors"
    save_file({**tensors, "embed": random(9, 5)}, path)
    with pytest.raises(InputError, match=words):
        open_network(path, kind, embedding="embed", seed=0, device=CPU)


def test_whole_numbers_in_a_file_count(tmp_path):
    tensors = {"W": torch.eye(2).long(), "Win": torch.eye(2), "values": random(3, 2)}
    marked = {"identity": torch.tensor(True), "bias": torch.tensor([2, 0])}
    save_file(tensors | marked, tmp_path / "r.safetensors")
    opened = open_network(
        tmp_path / "r.safetensors", "reservoir", embedding=None, seed=0, device=CPU
    )
    found = opened.step(torch.tensor([[5.0, 7.0]]), torch.tensor([1]))
    torch.testing.assert_close(found, torch.tensor([[7.0, 7.0]]) + tensors["values"][1])


def test_what_ids_stand_for_may_be_of_another_precision_than_weights(tmp_path):
    write(tmp_path / "w.safetensors", "gru")
    weights = load_file(tmp_path / "w.safetensors")
    save_file(
        weights | {"embed.weight": weights["embed.weight"].double()}, tmp_path / "w.safetensors"
    )
    opened = open_network(tmp_path / "w.safetensors", "gru", embedding=None, seed=0, device=CPU)
    assert opened.step(opened.start, torch.tensor([3])).dtype == torch.float32


def test_a_network_of_torch_is_computed_by_no_library_of_a_gpu(tmp_path, monkeypatch):
    """cuDNN's has no second derivative, and rounds products."""
    seen = []
    hidden = torch.nn.GRU.check_hidden_size
    monkeypatch.setattr(
        torch.nn.GRU,
        "check_hidden_size",
        lambda *given: seen.append(torch.backends.cudnn.enabled) or hidden(*given),
    )
    write(tmp_path / "w.safetensors", "gru")
    opened = open_network(tmp_path / "w.safetensors", "gru", embedding=None, seed=0, device=CPU)
    opened.step(opened.start, torch.tensor([3]))
    assert seen == [False]
    assert torch.backends.cudnn.enabled


def test_ids_that_the_network_does_not_have_are_refused(tmp_path, tokens):
    write(tmp_path / "w.safetensors", "gru")
    np.save(tmp_path / "far.npy", np.arange(10))
    with pytest.raises(InputError, match=r"far\.npy has the id 9, the network has 9 tokens"):
        examine_file(tmp_path / "w.safetensors", [tokens, tmp_path / "far.npy"], kind="gru")


def test_a_file_without_ids_is_refused(tmp_path):
    write(tmp_path / "w.safetensors", "gru")
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="give whole numbers"):
        examine_file(tmp_path / "w.safetensors", [tmp_path / "none.safetensors"], kind="gru")


def test_foreign_networks_stand_beside_each_other(tmp_path, tokens):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        write(path, "gru")
    given = Settings(None, {"analysis": asdict(SMALL.analysis)})
    found = compare(paths, given=given, tokens=[tokens], kind="gru")
    first, second = found["checkpoints"]
    assert first["train"]["token_memory"] == second["train"]["token_memory"]
    assert first["validation"] is None
    stream = io.StringIO()
    render_compare(found, Console(file=stream, width=80))
    shown = {line[:16].strip(): line.split()[-2:] for line in stream.getvalue().splitlines()}
    assert shown["text"] == ["train", "train"]
    assert shown["ER/D"] == [number(first["train"]["effective_rank_ratio"])] * 2
    assert "<td>train</td>" in compare_page(found)
    assert (first["name"], second["name"]) == ("a", "b")
    assert first["parameters"] == 9 * 5 + sum(p.numel() for p in torch.nn.GRU(5, 6, 2).parameters())
    assert found["config_differences"] == {}


@pytest.mark.parametrize("places", [4, 9])
def test_a_delay_line_has_the_capacity_of_its_places(places):
    values = maps.draw(200, 1).tanh()
    shift = torch.diag(torch.ones(places - 1), -1).double()
    inlet = torch.eye(places, dtype=torch.float64)[0]
    found = examine(
        lambda c, ids: c @ shift.T + values[ids] * inlet,
        maps.random_tokens(1, 6_000, 200)[0],
        start=torch.zeros(1, places, dtype=torch.float64),
        values=values.numpy(),
        config=Config(analysis=AnalysisConfig(memory_lags=places + 3, dynamics_steps=20)),
    )["train"]["memory_capacity"]
    assert found["by_lag"][:places] == pytest.approx([1.0] * places, abs=1e-3)
    assert found["total"] == pytest.approx(places - 1, rel=0.02)


def test_a_correlation_is_worth_what_chance_does_not_explain():
    wanted = torch.tensor([1, -1, 1, -1, 1, -1, 1, -1, 1, -1], dtype=torch.float64)[:, None]
    noise = torch.tensor([1, 1, -1, -1, 1, 1, -1, -1, 0, 0], dtype=torch.float64)[:, None]
    noise *= (10 / 8) ** 0.5  # as long as what is wanted, and at right angles to it
    # r² = 1/4 of ten rows: 1/4 - 3/4 / 8 (adjusted R², Wherry 1931).
    found = _correlation(0.5 * wanted + 0.75**0.5 * noise, wanted)
    assert found == pytest.approx(1 / 4 - 3 / 32, abs=1e-12)
    assert _correlation(noise, wanted) == 0


def test_a_reservoir_has_the_memory_capacity_that_reservoirpy_finds(tmp_path):
    nodes = pytest.importorskip("reservoirpy.nodes", reason="reservoirpy is not installed")
    observables = pytest.importorskip("reservoirpy.observables")
    lags, units, length = 20, 30, 12_000
    ids = np.random.default_rng(0).integers(0, 1_000, length)
    values = np.random.default_rng(1).uniform(-0.8, 0.8, (1_000, 1))
    series = values[ids]
    node = nodes.Reservoir(units, sr=0.95, lr=1.0, input_scaling=0.2, seed=5)
    theirs = observables.memory_capacity(
        node >> nodes.Ridge(ridge=1e-8), k_max=lags, series=series, test_size=0.25
    )
    node.initialize(series)
    dense = [w.toarray() if hasattr(w, "toarray") else np.asarray(w) for w in (node.W, node.Win)]
    bias = node.bias.toarray() if hasattr(node.bias, "toarray") else np.asarray(node.bias)
    path = tmp_path / "reservoir.safetensors"
    tensors = {"W": dense[0], "Win": dense[1], "bias": bias, "inputs": values}
    save_file(
        {k: torch.from_numpy(np.ascontiguousarray(v)).double() for k, v in tensors.items()}, path
    )
    opened = open_network(path, "reservoir", embedding=None, seed=0, device=CPU)
    state, kept = opened.start.repeat(8, 1), []
    passages = torch.from_numpy(ids).view(8, -1)
    for token in passages.unbind(1):
        state = opened.step(state, token)
        kept.append(state)
    contexts = torch.stack(kept, dim=1)[:, lags:]
    ours = memory_capacity(
        (labelled := label(contexts, passages, lags=lags + 1, frequent=1_000)),
        opened.values[labelled.types],
    )
    assert theirs > 5
    assert ours["total"] == pytest.approx(theirs, rel=0.02)
