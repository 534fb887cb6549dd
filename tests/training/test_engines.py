"""The three engines against one token at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_phase1 import (
    make_config,
    make_loss,
    make_window,
    naive_incoming,
    naive_loss,
    walk,
)
from recurrence import D, T, make_model

from newllm_core.training.phase1.engines import batches
from newllm_core.trajectory.sequential import rollout

ENGINES = ("parallel", "streams", "online")
MODEL = make_model(options={"hidden_dim": 3}, layer_structure=(1,))


@given(
    engine=st.sampled_from(ENGINES),
    length=st.integers(1, 90),
    num_streams=st.integers(1, 20),
    chunk_steps=st.integers(1, 20),
    batch_tokens=st.integers(1, 40),
    readings=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_every_position_is_visited_once(
    engine, length, num_streams, chunk_steps, batch_tokens, readings
):
    config = make_config(
        engine=engine, num_streams=num_streams, chunk_steps=chunk_steps, batch_tokens=batch_tokens
    ).phase1
    window = make_window(length, readings=readings)
    visited = []
    for batch in batches(MODEL, window, config, torch.Generator()):
        assert batch.incoming_NC.shape == (len(batch.positions_N), D)
        visited += batch.positions_N.tolist()
        window.store(batch.positions_N, torch.zeros(len(batch.positions_N), D).double())
    assert sorted(visited) == list(range(length))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("start", ["zero", "carry"])
@pytest.mark.parametrize("readings", [0, 1])
@pytest.mark.parametrize("length", [T, 3])
def test_incoming_contexts_are_the_definitions(engine, start, readings, length, exact_device):
    config = make_config(engine=engine)
    model = make_model().to(exact_device)
    window = make_window(length, start=start, readings=readings, device=exact_device)
    expected = naive_incoming(model, window, config)
    for batch, _ in walk(make_loss(model, config), window, config):
        torch.testing.assert_close(
            batch.incoming_NC, expected[batch.positions_N], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("start", ["zero", "carry"])
def test_a_window_that_refreshes_gives_the_newest_contexts_there_are(start):
    config = make_config(batch_tokens=7, min_batch_tokens=7)
    model = make_model()
    window = make_window(T, start=start, readings=1)
    window.refreshes = True
    newest, fresh, from_fresh = dict(enumerate(window.previous_TC.clone())), set(), 0
    for batch, terms in walk(make_loss(model, config), window, config):
        for position, incoming_C in zip(batch.positions_N.tolist(), batch.incoming_NC, strict=True):
            begin = window.first_C if start == "zero" else newest[T - 1]
            assert torch.equal(incoming_C, newest[position - 1] if position else begin)
            from_fresh += position - 1 in fresh
        fresh.update(batch.positions_N.tolist())
        newest |= dict(zip(batch.positions_N.tolist(), terms.contexts_NC, strict=True))
    assert 0 < from_fresh < T - 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("start", ["zero", "carry"])
def test_where_a_second_reading_begins(engine, start):
    config = make_config(engine=engine)
    model = make_model()
    window = make_window(T, start=start)
    begins, lasts = [], []
    for _ in range(2):
        for batch, _ in walk(make_loss(model, config), window, config):
            begins += batch.incoming_NC[batch.positions_N == 0]
        lasts.append(window.current_TC[-1].clone())
        window.finish_reading()
    assert torch.equal(begins[0], window.first_C)
    assert torch.equal(begins[1], window.first_C if start == "zero" else lasts[0])
    assert not torch.equal(lasts[0], window.first_C)


@pytest.mark.parametrize(("length", "stream_tokens"), [(20, 4), (300, 4), (300, 100)])
def test_streams_of_an_exact_reading_begin_after_tokens_of_their_window(length, stream_tokens):
    config, window = make_config(exact_stream_tokens=stream_tokens).phase1, make_window(length)
    model = make_model(cell="gated")
    with torch.no_grad():
        for cell in model.cells():
            cell.gate.bias.fill_(-8.0)  # forgets within a few tokens
    for batch in batches(model, window, config, torch.Generator(), exact=True):
        token_NE = model.embed(window.tokens_T[batch.positions_N])
        window.store(batch.positions_N, model.step(context=batch.incoming_NC, token=token_NE)[-1])
    exact_1TC = rollout(model, window.tokens_T[None], window.first_C[None])
    torch.testing.assert_close(window.current_TC, exact_1TC[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", ["cvfp", "reconstruction"])
@pytest.mark.parametrize("apply_to", ["final", "every-layer"])
@pytest.mark.parametrize("engine", ENGINES)
def test_loss_and_gradients_equal_the_naive_ones(engine, objective, apply_to, exact_device):
    length = T if engine != "online" else 9
    config = make_config(engine=engine, objective=objective, apply_to=apply_to)
    model = make_model(layer_structure=(1, 2)).to(exact_device)
    loss = make_loss(model, config)
    window = make_window(length, readings=1, device=exact_device)
    targets, incoming = window.previous_TC.clone(), naive_incoming(model, window, config)
    named = {n: p for part in (model.blocks, loss.objective) for n, p in part.named_parameters()}
    for batch, terms in walk(loss, window, config):
        at = batch.positions_N
        expected = naive_loss(loss, config, incoming[at], window.tokens_T[at], targets[at])
        assert terms.total.item() == pytest.approx(expected.item(), rel=1e-10)
        found, wanted = (
            torch.autograd.grad(
                total, list(named.values()), allow_unused=True, materialize_grads=True
            )
            for total in (terms.total, expected)
        )
        for name, one, other in zip(named, found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, msg=name)
        # Nothing reads the token that leaves the last cell.
        unread = {n for n, g in zip(named, found, strict=True) if not g.any()}
        of_token = ("network.to_token", "norm_token")
        assert unread == {
            n for n in named if n.startswith("1.layers.1.") and any(part in n for part in of_token)
        }


@pytest.mark.parametrize("engine", ENGINES)
def test_no_gradient_flows_into_incoming_contexts(engine):
    config = make_config(engine=engine)
    model = make_model()
    window = make_window(T, readings=1)
    generator = torch.Generator().manual_seed(0)
    batch = next(iter(batches(model, window, config.phase1, generator)))
    assert not batch.incoming_NC.requires_grad
    incoming = batch.incoming_NC.clone().requires_grad_()
    terms = make_loss(model, config).of_batch(window, batch._replace(incoming_NC=incoming))
    inputs = [incoming, model.embedding.weight]
    assert torch.autograd.grad(terms.total, inputs, allow_unused=True) == (None, None)


def test_online_takes_one_token_at_a_time_and_streams_a_chunk_of_each():
    sizes = {}
    for engine in ("online", "streams"):
        config = make_config(engine=engine, num_streams=4, chunk_steps=5)
        window = make_window(T)
        walked = walk(make_loss(MODEL, config), window, config)
        sizes[engine] = [len(batch.positions_N) for batch, _ in walked]
    assert sizes["online"] == [1] * 63
    # 63 tokens are streams of 16, 16, 16 and 15: three chunks of five, then one more for three.
    assert sizes["streams"] == [20, 20, 20, 3]


@pytest.mark.parametrize(
    ("length", "batch_tokens", "sizes"),
    [
        (63, 2048, [63]),
        (1000, 10, [10] * 100),
        (1000, 2048, [250] * 4),
        (64_000, 4096, [2000] * 32),
        (200_000, 4096, [4082] * 31 + [4081] * 18),
    ],
)
def test_parallel_batches_are_a_32nd_of_the_window_between_bounds(length, batch_tokens, sizes):
    config = make_config(batch_tokens=batch_tokens).phase1
    window = make_window(length)
    found = batches(MODEL, window, config, torch.Generator())
    assert [len(batch.positions_N) for batch in found] == sizes


def test_parallel_order_is_shuffled_and_given_by_the_generator():
    config = make_config(batch_tokens=10).phase1
    window = make_window(T)
    orders = [
        [
            position
            for batch in batches(MODEL, window, config, torch.Generator().manual_seed(seed))
            for position in batch.positions_N.tolist()
        ]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_parallel_batches_of_neighbours_are_shuffled_whole():
    config = make_config(batch_tokens=10).phase1
    window = make_window(1000)
    found = [
        batch.positions_N.tolist()
        for batch in batches(
            MODEL, window, config, torch.Generator().manual_seed(0), neighbours=True
        )
    ]
    begins = [positions[0] for positions in found]
    assert found == [[*range(begin, begin + 10)] for begin in begins]
    assert sorted(begins) == [*range(0, 1000, 10)] != begins


def test_an_exact_reading_warms_up_for_as_long_as_slow_dimensions_remember():
    model = make_model(slow_dims=4, slow_decays=(0.99,))
    config = make_config(exact_stream_tokens=1).phase1
    window = make_window(2000)
    exact = rollout(model, window.tokens_T[None], window.first_C[None])[0, :, -4:]
    for batch in batches(model, window, config, torch.Generator(), exact=True):
        found = model.step(
            context=batch.incoming_NC, token=model.embed(window.tokens_T[batch.positions_N])
        )[-1]
        window.store(batch.positions_N, found)
        off = (found[:, -4:] - exact[batch.positions_N]).abs().max()
        assert off < 0.011 * exact.abs().max()


def test_a_step_between_chunks_is_seen_by_the_next_chunk():
    """Contexts inside a chunk are those of the weights its own step starts from."""
    config = make_config(engine="streams", num_streams=1, chunk_steps=20)
    model = make_model()
    window = make_window(T, readings=1)
    walked = walk(make_loss(model, config), window, config)
    next(walked)
    with torch.no_grad():
        model.cells()[0].network.to_context.bias.add_(1.0)
    batch, _ = next(walked)
    assert batch.positions_N.tolist() == list(range(20, 40))
    window.tokens_T, kept = window.tokens_T[20:40], window.current_TC[19]
    window.first_C, window.start = kept, "zero"
    window.previous_TC = window.previous_TC[20:40]
    expected = naive_incoming(model, window, config)
    torch.testing.assert_close(batch.incoming_NC, expected, rtol=0, atol=1e-10)
