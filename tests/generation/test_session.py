from itertools import islice

import pytest
import recurrence
import torch
from recurrence import SHAPES, draw, draw_tokens, session_at, text_formula

from newllm_core.errors import InputError
from newllm_core.trajectory.sequential import unroll

from .cases import make_model, session_of

VOCAB = 13


@pytest.fixture
def model(device):
    return make_model(VOCAB, num_heads=2).to(device)


def tokens(model, count=30, ends=(), **options):
    session = session_of(model, **options)
    session.read([1, 2, 3])
    return list(session.choose(count, ends))


def test_greedy_is_the_last_heads_argmax_of_the_whole_text(model):
    greedy = tokens(model, 8, temperature=0, start_id=12)
    read = [12, 1, 2, 3]
    for token in greedy:
        contexts = unroll(model, torch.tensor([read], device=model.start(1).device), model.start(1))
        assert token == int(model.token_output[-1](contexts[-1][0, -1]).argmax())
        read.append(token)
    assert greedy == tokens(model, 8, temperature=0, start_id=12, seed=5)


def test_a_seed_says_everything(model):
    assert tokens(model, seed=1) == tokens(model, seed=1)
    assert tokens(model, seed=1) != tokens(model, seed=2)


def test_choosing_in_parts_is_choosing_at_once(model):
    session = session_of(model)
    session.read([1, 2])
    session.read([3])
    parts = [*session.choose(11), *session.choose(0), *session.choose(19)]
    assert parts == tokens(model)


def test_what_was_chosen_is_read_before_what_is_given(model):
    session = session_of(model, temperature=0)
    session.read([1])
    chosen = list(session.choose(3))
    assert session.pending == chosen[-1]
    session.read([5])
    assert session.pending is None
    read = torch.tensor([[1, *chosen, 5]], device=session.context_C.device)
    contexts = unroll(model, read, model.start(1))
    torch.testing.assert_close(session.context_C, contexts[-1][0, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("heads", [1, 2])
def test_contexts_and_logits_equal_the_formulas(shape, heads):
    model = recurrence.make_model(num_heads=heads, **shape)
    read, context = draw_tokens(20), draw(recurrence.D, seed=7)
    with torch.no_grad():
        expected = text_formula(model, read, context)
        logits = model.token_output[-1](expected)
    session = session_at(model, context)
    for number, token in enumerate(read.tolist()):
        session.read([token])
        torch.testing.assert_close(session.context_C, expected[number], rtol=0, atol=1e-10)
        found = torch.from_numpy(session._logits())
        torch.testing.assert_close(found, logits[number], rtol=0, atol=1e-10)


def test_a_context_stays_as_it_is_when_another_follows(model):
    session = session_of(model)
    assert not session.context_C.any()
    session.read([3])
    first = session.context_C
    kept = first.clone()
    session.read([4])
    second = session.context_C
    assert torch.equal(first, kept)
    for token, is_same in ((4, True), (5, False)):
        session.go_on_from(kept, None, 3)
        session.read([token])
        assert torch.equal(session.context_C, second) is is_same


def test_an_end_ends_the_text_until_something_is_read(model):
    with torch.no_grad():
        model.token_output[-1].bias[12] = 1e4
    session = session_of(model)
    session.read([1])
    assert list(session.choose(3)) == [12, 12, 12]
    assert list(session.choose(3, ends={4, 12})) == []
    assert session.pending == 12
    with torch.no_grad():
        model.token_output[-1].bias[12] = -1e4
    assert list(session.choose(3, ends={12})) == []
    session.read([2])
    assert len(list(session.choose(3, ends={12}))) == 3


def test_pending_ids_can_be_forgotten(model):
    session = session_of(model, temperature=0)
    session.read([1])
    context = session.context_C
    (chosen,) = session.choose(1)
    session.forget_pending({chosen + 1})
    assert session.pending == chosen
    session.forget_pending({chosen})
    assert session.pending is None
    assert torch.equal(session.context_C, context)
    assert list(session.choose(1)) == [chosen]


def test_it_streams_and_leaves_gradients_on(model):
    session = session_of(model)
    assert len(list(islice(session.choose(10**12), 5))) == 5
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_ids_outside_the_vocabulary_are_refused(model):
    for token in (VOCAB, -1):
        with pytest.raises(InputError, match="vocabulary of 13"):
            session_of(model).read([1, token])


def test_only_what_came_lately_is_penalised_and_never_an_end(model):
    with torch.no_grad():
        model.token_output[-1].bias += 50  # every logit is positive: what came loses to all others

    def text(**options):
        return tokens(model, 12, temperature=0, repetition_penalty=100, **options)

    plain = tokens(model, 12, temperature=0)
    assert text(penalty_tokens=0) == plain
    assert len(set(text(penalty_tokens=3))) < 10
    # The last three tokens never come again while there are others.
    pairs = zip(text(penalty_tokens=3), text(penalty_tokens=3)[1:], strict=False)
    assert all(one != other for one, other in pairs)
    chosen = text(penalty_tokens=64)
    assert len({1, 2, 3, *chosen}) == VOCAB  # the prompt counts as well
    with torch.no_grad():
        model.token_output[-1].bias[7] = 1e9
    session = session_of(model, temperature=0, repetition_penalty=100)
    session.read([7])
    assert list(session.choose(3, ends={7})) == []
