"""One stream, one token at a time, against the formulas."""

import pytest
import torch
from recurrence import SHAPES, D, draw, draw_tokens, make_model, text_formula

from newllm_core.trajectory.single import SingleStream


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("heads", [1, 2])
def test_contexts_and_logits_equal_the_formulas(shape, heads):
    model = make_model(num_heads=heads, **shape)
    tokens, context = draw_tokens(20), draw(D, seed=7)
    with torch.no_grad():
        expected = text_formula(model, tokens, context)
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
