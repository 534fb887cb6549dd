"""One stream, one token at a time, against the reference."""

import pytest
import torch
from recurrence import SHAPES, D, V, draw, draw_tokens, make_model

from newllm_core import native
from newllm_core.trajectory import single
from newllm_core.trajectory.reference import naive_trajectory
from newllm_core.trajectory.single import SingleStream


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("heads", [1, 2])
def test_contexts_and_logits_equal_the_reference(shape, heads):
    model = make_model(num_heads=heads, **shape)
    tokens, context = draw_tokens(20), draw(D, seed=7)
    with torch.no_grad():
        expected = naive_trajectory(model, tokens, context)
        logits = model.token_output[-1](expected)
    stream = SingleStream(model)
    for number, token in enumerate(tokens.tolist()):
        context = stream.step(context, token)
        torch.testing.assert_close(context, expected[number], rtol=0, atol=1e-10)
        found = torch.from_numpy(stream.logits(context))
        torch.testing.assert_close(found, logits[number], rtol=0, atol=1e-10)


def test_a_context_stays_as_it_is_when_another_follows():
    stream = SingleStream(make_model())
    first = stream.step(stream.start(), 3)
    kept = first.clone()
    second = stream.step(first, 4)
    assert torch.equal(first, kept)
    assert torch.equal(second, stream.step(kept, 4))
    assert not torch.equal(second, stream.step(kept, 5))
    assert not stream.start().any()


def test_large_matrices_are_read_by_the_loops_in_c(monkeypatch):
    if native.library() is None:
        pytest.skip("the loops in C were not compiled when newllm was installed")
    called = []
    inner = single.matrix_vector
    monkeypatch.setattr(
        single, "matrix_vector", lambda *given: called.append(given[0].shape) or inner(*given)
    )
    monkeypatch.setattr(single, "WORTH_A_CALL", V * D)
    model = make_model().float()
    stream, context = SingleStream(model), draw(D, seed=7).float()
    with torch.no_grad():
        expected = naive_trajectory(model, torch.tensor([3]), context)
        logits = model.token_output[-1](expected)
    torch.testing.assert_close(stream.step(context, 3), expected[0], rtol=0, atol=1e-5)
    found = torch.from_numpy(stream.logits(expected[0]))
    torch.testing.assert_close(found, logits[0], rtol=0, atol=1e-5)
    assert called[-1] == (V, D)
