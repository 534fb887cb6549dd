"""Every way to compute contexts against one token at a time; nothing sees the future."""

from functools import cache

import numpy as np
import pytest
import torch
from recurrence import SHAPES, D, T, draw, draw_tokens, make_model, sweep, text_formula

from newllm_core.runtime.progress import Task
from newllm_core.training.phase1.engines import incoming
from newllm_core.trajectory import sequential
from newllm_core.trajectory.sequential import rollout, unroll
from newllm_core.trajectory.text import contexts_of_text, inputs_at

B = 2


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def model(shape, exact_device):
    return make_model(**SHAPES[shape]).to(exact_device)


@pytest.fixture
def text(exact_device):
    return draw_tokens(B, T).to(exact_device), draw(B, D, seed=7).to(exact_device)


@pytest.fixture
def exact(shape, exact_device):
    return naive(shape)[1].detach().to(exact_device)


@cache
def naive(shape):
    """The model on the processor, a start of each text, and the contexts of one token at a time."""
    model, start_BC = make_model(**SHAPES[shape]), draw(B, D, seed=7).requires_grad_()
    rows = zip(draw_tokens(B, T), start_BC, strict=True)
    exact_BTC = torch.stack([text_formula(model, tokens, start) for tokens, start in rows])
    return (model, start_BC), exact_BTC


@pytest.mark.parametrize(("warmup", "at_once"), [(0, 65_536), (5, 40), (T - 1, 1)])
def test_rollout_equals_the_formulas(model, text, exact, warmup, at_once, monkeypatch):
    monkeypatch.setattr(sequential, "TOKENS_AT_ONCE", at_once)
    found = rollout(model, *text, warmup=warmup)
    assert found.shape == (B, T - warmup, D)
    torch.testing.assert_close(found, exact[:, warmup:], rtol=0, atol=1e-10)


def test_unroll_gives_the_context_after_every_block(model, text, exact):
    found = unroll(model, *text)
    assert len(found) == model.config.num_blocks
    torch.testing.assert_close(found[-1], exact, rtol=0, atol=1e-10)
    # The last blocks' contexts feed the next token, whatever block is looked at.
    before = torch.cat([text[1][:, None], found[-1][:, :-1]], dim=1)
    expected = model.step(context=before, token=model.embed(text[0]))
    for of_block, one_step in zip(found, expected, strict=True):
        torch.testing.assert_close(of_block, one_step, rtol=0, atol=1e-10)


def gradients(model, start_BC, contexts_BTC):
    """The gradient of everything that contexts depend on, by name."""
    # Nothing reads the token that leaves the last cell.
    of_token = ("norm_token", "network.to_token")
    last = model.cells()[-1]
    unread = {id(p) for name, p in last.named_parameters() if name.startswith(of_token)}
    named = {name: p for name, p in model.blocks.named_parameters() if id(p) not in unread}
    named |= {"start": start_BC, "embedding": model.embedding.weight}
    weights_BTC = draw(B, T, D, seed=9).to(start_BC.device)
    total = (contexts_BTC * weights_BTC).sum()
    found = torch.autograd.grad(total, list(named.values()), retain_graph=True)
    return dict(zip(named, found, strict=True))


def test_gradients_through_time_equal_the_formulas(shape, model, text):
    start = text[1].requires_grad_()
    found = gradients(model, start, unroll(model, text[0], start)[-1])
    (plain, its_start), exact = naive(shape)
    expected = gradients(plain, its_start, exact)
    assert found.keys() == expected.keys()
    for name, other in expected.items():
        scale = other.abs().max().item()
        assert scale > 0, name
        ours = found[name].cpu() / scale
        torch.testing.assert_close(ours, other / scale, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("cut", [0, 30])
def test_later_tokens_change_neither_contexts_nor_logits(model, text, cut):
    tokens, start = text
    changed = tokens.clone()
    changed[:, cut + 1 :] = (changed[:, cut + 1 :] + 1) % model.vocab_size
    one, other = unroll(model, tokens, start), unroll(model, changed, start)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[:, : cut + 1], b[:, : cut + 1])
        assert not torch.equal(a[:, cut + 1], b[:, cut + 1])
    assert torch.equal(model.logits(one)[0][:, : cut + 1], model.logits(other)[0][:, : cut + 1])
    final = rollout(model, changed, start)
    assert torch.equal(final[:, : cut + 1], one[-1][:, : cut + 1])


def test_a_sweep_does_not_see_later_tokens(model, text):
    tokens, cut = text[0][0], 30
    changed = tokens.clone()
    changed[cut + 1 :] = (changed[cut + 1 :] + 1) % model.vocab_size
    previous = draw(T, D, seed=3).to(changed.device)
    one, other = (sweep(model, ids, previous, text[1][0]) for ids in (tokens, changed))
    assert torch.equal(one[: cut + 1], other[: cut + 1])
    assert not torch.equal(one[cut + 1], other[cut + 1])


def test_streams_do_not_see_each_other(model, text):
    tokens, start = text
    alone = torch.cat([rollout(model, tokens[b : b + 1], start[b : b + 1]) for b in range(B)])
    torch.testing.assert_close(rollout(model, tokens, start), alone, rtol=0, atol=1e-10)


def test_a_carried_state_continues_a_text(model, text):
    tokens, start = text
    first = rollout(model, tokens[:, :20], start)
    second = rollout(model, tokens[:, 20:], first[:, -1])
    whole = rollout(model, tokens, start)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-10)


def test_after_k_sweeps_the_first_k_contexts_are_exact(model, text, exact):
    tokens, start = text[0][0], text[1][0]
    contexts = draw(T, D, seed=5).to(start.device)
    for k in range(1, T + 1):
        contexts = sweep(model, tokens, contexts, start)
        torch.testing.assert_close(contexts[:k], exact[0, :k], rtol=0, atol=1e-10)
        if k < 4:
            assert (contexts[k] - exact[0, k]).abs().max() > 1e-4


def test_incoming_contexts_are_those_one_place_before():
    previous, start = draw(T, D), draw(D, seed=1)
    positions = torch.tensor([4, 0, 62, 1, 0])
    expected = torch.stack([previous[3], start, previous[61], previous[0], start])
    assert torch.equal(incoming(previous, start, positions), expected)


def test_a_token_is_predicted_after_the_one_before_it():
    tokens = np.array([5, 6, 7], np.uint16)
    found = inputs_at(tokens, np.array([[0, 1, 2], [-3, 0, 1]]), end_id=9)
    assert found.tolist() == [[9, 5, 6], [9, 9, 5]]


@pytest.mark.parametrize("length", [1, 2, 63, 500])
@pytest.mark.parametrize("num_streams", [1, 4])
def test_reading_a_text_visits_every_token_once(length, num_streams):
    model = make_model()
    tokens = draw_tokens(length).numpy().astype(np.uint16)
    chunks = list(contexts_of_text(model, tokens, end_id=2, num_streams=num_streams, warmup=16))
    positions = np.concatenate([chunk.positions_N for chunk in chunks])
    assert sorted(positions.tolist()) == list(range(length))
    for chunk in chunks:
        assert np.array_equal(chunk.targets_N.numpy(), tokens[chunk.positions_N])
        assert [c.shape for c in chunk.contexts] == [(len(chunk.positions_N), D)] * 2


def test_one_stream_of_a_text_is_exact_and_predicts_from_before(monkeypatch):
    monkeypatch.setattr("newllm_core.trajectory.text.ROWS_AT_ONCE", 10)
    model = make_model()
    ids = draw_tokens(T)
    chunks = list(contexts_of_text(model, ids.numpy(), end_id=2, num_streams=1))
    assert len(chunks) == 7
    found = torch.cat([chunk.contexts[-1] for chunk in chunks])
    read = torch.cat([torch.tensor([2]), ids[:-1]])
    expected = text_formula(model, read, model.start(1)[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_later_streams_of_a_text_start_from_their_warmup(exact_device):
    model = make_model().to(exact_device)
    ids = draw_tokens(200)
    chunks = list(contexts_of_text(model, ids.numpy(), end_id=2, num_streams=4, warmup=25))
    found = torch.empty(200, D, dtype=torch.float64, device=exact_device)
    for chunk in chunks:
        found[chunk.positions_N] = chunk.contexts[-1]
    read = torch.cat([torch.tensor([2]), ids[:-1]])
    for begin in (0, 50, 100, 150):
        first = max(0, begin - 25)
        stream = text_formula(model, read[first : begin + 50], model.start(1)[0])
        torch.testing.assert_close(
            found[begin : begin + 50], stream[begin - first :], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    ("memory", "span"),
    [
        ({"slow_dims": 4, "slow_decays": (0.5, 0.995)}, 919),
        ({"delay_dims": 600, "delay_tokens": 300, "context_dim": 608}, 300),
        ({"slow_dims": 4, "slow_decays": (0.0, 0.9)}, 44),
    ],
)
def test_streams_warm_up_for_as_long_as_the_memory_lasts(memory, span):
    model = make_model(**memory)
    assert model.config.memory_span == span
    ids, found = draw_tokens(5000).numpy(), []
    for options in ({"num_streams": 1}, {}):
        chunks = list(contexts_of_text(model, ids, end_id=2, **options))
        order = np.concatenate([chunk.positions_N for chunk in chunks]).argsort()
        found.append(torch.cat([chunk.contexts[-1] for chunk in chunks])[order])
    exact, streams = (contexts_TC[:, model.config.learned_dims :] for contexts_TC in found)
    assert not torch.equal(*found)
    assert (streams - exact).abs().max() <= 0.011 * exact.abs().max()


def test_whoever_waits_for_a_rollout_hears_of_its_tokens_while_it_reads(monkeypatch):
    monkeypatch.setattr(sequential, "TOKENS_AT_ONCE", 20)
    model, task, told = make_model(), Task(), []
    task.advance = told.append
    rollout(model, draw_tokens(B, 25), model.start(B), warmup=24, task=task)
    assert told == [20, 20, 10]
