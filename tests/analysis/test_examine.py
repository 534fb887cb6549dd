"""`examine`: the same network in two forms, and what is no network."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from newllm_core.analysis import examine, examine_states
from newllm_core.analysis.contexts import read_splits
from newllm_core.analysis.examiner import Examiner
from newllm_core.analysis.matrix import analyze_matrix
from newllm_core.analysis.recurrence import ModelRecurrence
from newllm_core.analysis.stepped import Layout, Stepped
from newllm_core.analysis.token_dependency import contributions
from newllm_core.config import AnalysisConfig, Config, ModelConfig
from newllm_core.errors import ConfigError, DivergedError, InputError, PluginError
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent

from . import maps
from .alike import assert_same
from .maps import SMALL, linear_step, zeros

WIDTH, VOCAB = 24, 50


def gru_step(model):
    """The same recurrence as torch.nn.GRU, which has its gates in another order."""
    unit = model.cells()[0].unit
    gru = torch.nn.GRU(20, WIDTH).double().requires_grad_(False)

    def ordered(weights):
        update, reset, new = weights.detach().split(WIDTH)
        return torch.cat([reset, update, new])

    gru.weight_hh_l0.copy_(ordered(unit.of_context.weight))
    gru.weight_ih_l0.copy_(ordered(unit.of_token.weight))
    gru.bias_ih_l0.copy_(ordered(unit.of_token.bias))
    gru.bias_hh_l0.zero_()
    embedded = F.layer_norm(model.embedding.weight.detach(), (20,))

    def step(state, ids):
        return gru(embedded[ids][None], state.transpose(0, 1).contiguous())[1].transpose(0, 1)

    return step


def test_a_torch_gru_has_the_report_of_the_same_checkpoint():
    shape = ModelConfig(
        context_dim=WIDTH, embed_dim=20, cell="gru", layer_structure=(1,), init_std=0.3
    )
    model = LanguageModel(shape, VOCAB, seed=1).double().requires_grad_(False)
    control = model.untrained()
    for parameter in model.blocks.parameters():
        parameter.mul_(1.3)
    probes = {
        split: maps.random_tokens(6, 96, VOCAB, seed=seed)
        for seed, split in enumerate(("train", "validation"))
    }
    expected = Examiner(SMALL, warmup=32, text=lambda token: f"#{token}").report(
        ModelRecurrence(model), ModelRecurrence(control), probes, Silent()
    )
    pair = probes["train"], probes["validation"]
    start = torch.zeros(1, 1, WIDTH, dtype=torch.float64)
    same = {"start": start, "control": gru_step(control), "config": SMALL}
    found = examine(gru_step(model), pair, warmup=32, **same)
    assert found["train"]["jacobian"] == {"method": "exact", "error": 0.0}
    for key in expected:
        assert_same(found[key], expected[key], key)


class Pair(NamedTuple):
    """A state in a tuple."""

    slow: torch.Tensor
    fast: torch.Tensor


@dataclass
class Nested:
    """A state with names, and a number that is none of its tensors."""

    pair: Pair
    layers: list
    wave: torch.Tensor
    kind: str = "kept"


def test_a_nest_of_tensors_is_one_vector_with_names():
    wave = torch.complex(maps.draw(1, 2), maps.draw(1, 2, seed=1))
    start = Nested(Pair(maps.draw(1, 3), maps.draw(1, 2, 2)), [{"k": maps.draw(1, 1)}], wave)
    layout = Layout(start)
    assert layout.names == ["pair.slow", "pair.fast", "layers.0.k", "wave"]
    assert layout.sizes == [3, 4, 1, 4]
    again = layout.nested(layout.flatten(start).repeat(5, 1))
    assert again.kind == "kept"
    assert again.pair.fast.shape == (5, 2, 2)
    torch.testing.assert_close(again.wave[3:4], wave)
    torch.testing.assert_close(again.layers[0]["k"][1:2], start.layers[0]["k"])


def test_a_step_may_conjugate_its_state():
    recurrence = Stepped(lambda state, ids: (0.5 * state).conj(), torch.ones(1, 2) + 3j)
    after = recurrence.read(recurrence.start(2), torch.zeros(2).long())
    assert after.tolist() == [[0.5, -1.5, 0.5, -1.5]] * 2


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({}, "holds no tensor: .* such as start = torch.zeros"),
        (torch.zeros(2, 3), "batch of one"),
        ({"place": torch.zeros(1, dtype=torch.long)}, "place is torch.int64"),
        (torch.zeros(1, 0), r"shape \[1, 0\], expected a batch of one"),
    ],
)
def test_a_start_that_is_no_state_is_refused(start, words):
    with pytest.raises(ConfigError, match=words):
        examine(lambda c, x: c, torch.arange(50), start=start)


def test_a_state_that_grows_is_refused_in_one_line():
    def attend(state, ids):
        return {"keys": torch.cat([state["keys"], state["keys"][:, -1:]], dim=1)}

    words = r"^step returned keys of shape \[1, 2, 4\], expected \[1, 1, 4\]: .*grows with the text"
    with pytest.raises(PluginError, match=words):
        examine(attend, torch.zeros(50, dtype=torch.long), start={"keys": torch.zeros(1, 1, 4)})


def test_states_that_explode_and_texts_that_are_too_short_are_refused():
    tokens = maps.random_tokens(1, 700, 5)[0]
    with pytest.raises(DivergedError, match=r"not finite: the recurrence explodes$"):
        examine(lambda c, x: 20 * c + 1, tokens, start=torch.zeros(1, 2))
    with pytest.raises(InputError, match="too few"):
        examine(lambda c, x: c, tokens[:1], start=torch.zeros(1, 2))


@pytest.mark.parametrize(
    "tokens",
    [torch.rand(700), torch.zeros(2, 3, 4).long(), torch.tensor(3), "text", None, [1, 2, 3]],
)
def test_what_is_no_text_of_token_ids_is_refused(tokens):
    with pytest.raises(InputError, match="tokens: give whole numbers"):
        examine(lambda c, x: c, tokens, start=torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warmup": -5}, "warmup is -5: give a number of tokens"),
        ({"warmup": 1.5}, "warmup is 1.5: give a number of tokens"),
        ({"values": "x"}, "values: expected numbers"),
        ({"values": torch.full((5,), math.nan)}, "real numbers that are finite"),
        ({"values": torch.ones(5) * 1j}, "real numbers that are finite"),
        ({"values": torch.ones(5, 0)}, r"values has shape \[5, 0\]"),
        ({"values": torch.ones(3)}, r"values has shape \[3, 1\], expected a row for every id"),
    ],
)
@pytest.mark.parametrize("shape", [(700,), (7, 100)])
def test_what_does_not_fit_is_refused(shape, given, words):
    tokens = maps.random_tokens(1, 700, 5).view(shape)
    with pytest.raises(ConfigError, match=words):
        examine(linear_step(0.5 * torch.eye(3).double()), tokens, start=zeros(3), **given)


def test_inference_mode_and_numbers_of_numpy_change_nothing():
    tokens, step = maps.random_tokens(1, 700, 5)[0], linear_step(0.5 * torch.eye(3).double())
    plain = examine(step, tokens, start=zeros(3), config=SMALL, seed=3)
    with torch.inference_mode():
        found = examine(step, tokens, start=zeros(3), config=SMALL, seed=np.int64(3))
    assert plain["train"]["jacobian"]["method"] == "exact"
    assert found == plain


@pytest.mark.parametrize("shape", [(700,), (7, 100)])
def test_negative_ids_are_refused(shape):
    tokens = torch.ones(shape, dtype=torch.long).index_fill(-1, torch.tensor(30), -3)
    with pytest.raises(InputError, match=r"^tokens: ids are never negative, found -3$"):
        examine(lambda c, x: c, tokens, start=torch.zeros(1, 2))


def test_step_reads_only_ids_that_occur():
    seen = set()
    tokens = torch.tensor([2, 3, 5, 7, 11])[maps.random_tokens(1, 400, 5)[0]]
    step = linear_step(0.5 * torch.eye(3).double(), vocab=12)

    def watched(state, ids):
        seen.update(ids.tolist())
        assert len(state) == len(ids)
        return step(state, ids)

    report = examine(watched, tokens, start=zeros(3), control=watched, config=SMALL)
    assert seen == {2, 3, 5, 7, 11}
    assert report["validation"] is None
    assert set(report["differences"]["train_minus_control"]) >= {"lyapunov_exponent"}


def test_a_step_may_write_in_the_state_that_it_gets():
    matrix, inputs = maps.with_spectrum([0.9, 0.5, 0.2]), maps.draw(5, 3)
    tokens = maps.random_tokens(1, 500, 5)[0]

    def in_place(state, ids):
        state.copy_(state @ matrix.T)
        return state.add_(inputs[ids]).tanh_()

    def pure(state, ids):
        return (state @ matrix.T + inputs[ids]).tanh()

    found, expected = (
        examine(step, tokens, start=zeros(3), config=SMALL) for step in (in_place, pure)
    )
    assert found == expected


@pytest.mark.parametrize("how", ["numpy", "cut"])
def test_a_step_without_gradients_is_differenced(how):
    matrix = maps.with_spectrum([0.9, 0.5, 0.2])

    def step(state, ids):
        if how == "numpy":
            return torch.from_numpy(state.detach().numpy() @ matrix.numpy().T)
        return state @ matrix.T + 0.5 * (state @ matrix.T).detach()

    rate = 1.5 if how == "cut" else 1.0
    recurrence = Stepped(step, zeros(3))
    context, vector = maps.draw(4, 3), maps.draw(4, 3, seed=1)
    _, pushed = recurrence.push_forward(context, torch.zeros(4).long(), vector)
    assert recurrence.derivative == "differences"
    assert recurrence.derivative_error < 1e-6
    torch.testing.assert_close(pushed, rate * vector @ matrix.T, rtol=1e-7, atol=1e-8)


def test_long_states_are_sketched_with_their_error_said():
    """Contexts in a known subspace of a long state: rank and distances are known."""
    width, rank = 5_000, 12
    config = Config(analysis=replace(SMALL.analysis, dynamics_steps=24, dynamics_passages=4))
    basis = torch.linalg.qr(maps.draw(width, rank)).Q.T.contiguous()
    codes = maps.draw(30, rank, seed=2)
    tokens = maps.random_tokens(1, 600, 30)[0]

    def step(state, ids):
        return 0.3 * state + codes[ids] @ basis

    long = examine(step, tokens, start=zeros(width), config=config)
    found, sketch = long["train"], long["train"]["sketch"]
    exact = examine(lambda c, ids: 0.3 * c + codes[ids], tokens, start=zeros(rank), config=SMALL)[
        "train"
    ]
    assert long["state"] == {
        "dimensions": width,
        "parts": {"state": width},
        "is_sketched": True,
    }
    apart = abs(found["effective_rank"] - exact["effective_rank"])
    assert apart < 3 * sketch["effective_rank_error"] + 0.05
    assert found["effective_rank_ratio"] == pytest.approx(found["effective_rank"] / width)
    norm = exact["norm"]["mean"]
    assert found["norm"]["mean"] == pytest.approx(norm, rel=2 * sketch["distance_error"])
    assert found["lyapunov_exponent"]["mean"] == pytest.approx(math.log(0.3), abs=1e-6)
    assert found["token_memory"]["by_lag"][0] > 0.8


def test_a_network_without_memory_keeps_one_token_whatever_it_can_guess():
    """Text that counts from 0 to 9 again and again, with now and then another number."""
    other = torch.rand(4_000, generator=torch.Generator().manual_seed(1)) < 0.05
    random = maps.random_tokens(1, 4_000, 10)[0]
    tokens = torch.where(other, random, torch.arange(4_000) % 10)
    codes = maps.draw(10, 30)
    forgets = examine(lambda c, ids: codes[ids] + 0 * c, tokens, start=zeros(30), config=SMALL)
    memory = forgets["train"]["token_memory"]
    assert memory["total"] > 4
    assert memory["kept"] == pytest.approx(memory["by_lag"][0], abs=1e-6)
    (verdict,) = [v for v in forgets["verdicts"] if v["section"] == "memory"]
    assert verdict["status"] == "weak"
    shift = torch.zeros(30, 30, dtype=torch.float64)
    shift[10:, :20] = torch.eye(20)
    placed = torch.eye(10, 30, dtype=torch.float64)
    holds = examine(lambda c, ids: c @ shift.T + placed[ids], tokens, start=zeros(30), config=SMALL)
    assert holds["train"]["token_memory"]["kept"] > 1.5
    # Nothing can be guessed of independent tokens: what is remembered is kept.
    holds = examine(lambda c, ids: c @ shift.T + placed[ids], random, start=zeros(30), config=SMALL)
    assert holds["train"]["token_memory"]["kept"] == pytest.approx(3, abs=0.05)


def test_contributions_are_those_of_reading_it_again_with_another_token():
    step = linear_step(maps.with_spectrum([0.7, 0.6, 0.5]), vocab=2)
    recurrence = Stepped(step, zeros(3))
    tokens = maps.random_tokens(4, 40, 2)
    read = read_splits(recurrence, {"train": tokens}, 8)["train"]
    config = AnalysisConfig(contribution_tokens=5)
    found = contributions(recurrence, read, config, seed=0)
    expected = []
    for place in range(5):  # with two kinds of tokens there is one other
        changed = tokens[:1, 8:13].clone()
        changed[0, place] = 1 - changed[0, place]
        ends = [
            recurrence.rollout(ids, read.ends[0, :1])[1][0] for ids in (tokens[:1, 8:13], changed)
        ]
        expected.append(float((ends[0] - ends[1]).norm() / ends[0].norm()))
    assert found["by_token"] == pytest.approx(expected)
    assert found["tokens"] == tokens[0, 8:13].tolist()


def test_states_alone_have_the_figures_of_a_matrix_file(tmp_path):
    import numpy as np

    states = maps.draw(60, 5)
    np.save(tmp_path / "states.npy", states.numpy())
    from_file = analyze_matrix(tmp_path / "states.npy")
    found = examine_states(states)
    assert found == {key: from_file[key] for key in found}
    assert "singular_vectors" in found
    with pytest.raises(InputError, match="first in row 2"):
        examine_states(states.index_fill(0, torch.tensor(2), math.nan))
    with pytest.raises(InputError, match=r"states has the type torch.complex128, expected real"):
        examine_states(torch.complex(states, states))
