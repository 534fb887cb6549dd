import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.config import GenerationConfig
from newllm_core.errors import DivergedError
from newllm_core.generation.sampling import choose

LOGITS = np.log(np.array([0.05, 0.5, 0.15, 0.3], np.float32))
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": 1.0}


def draw(logits, generator=None, **options):
    generator = generator or torch.Generator().manual_seed(0)
    return choose(np.asarray(logits, np.float32), GenerationConfig(**PLAIN | options), generator)


def draws(count=2000, logits=LOGITS, **options):
    generator = torch.Generator().manual_seed(0)
    return [draw(logits, generator, **options) for _ in range(count)]


def shares(**options):
    drawn = draws(**options)
    return [drawn.count(token) / len(drawn) for token in range(4)]


def test_draws_follow_the_probabilities():
    assert shares() == pytest.approx([0.05, 0.5, 0.15, 0.3], abs=0.04)
    assert shares(top_k=2) == pytest.approx([0, 0.625, 0, 0.375], abs=0.04)
    assert shares(top_p=0.7) == pytest.approx([0, 0.625, 0, 0.375], abs=0.04)
    assert shares(top_p=0.9) == pytest.approx([0, 0.526, 0.158, 0.316], abs=0.04)
    squares = [p * p / 0.365 for p in (0.05, 0.5, 0.15, 0.3)]
    assert shares(temperature=0.5) == pytest.approx(squares, abs=0.04)


def test_top_p_is_a_share_of_what_top_k_leaves():
    # Of 0.5 and 0.3 the first alone is 62 %; of everything it is 50 %.
    assert set(draws(200, top_k=2, top_p=0.6)) == {1}
    assert set(draws(200, top_p=0.6)) == {1, 3}


def test_limits_that_leave_everything_change_nothing():
    assert draws(200, top_k=99) == draws(200) == draws(200, top_k=4)


@pytest.mark.parametrize(
    "options",
    [
        *({"temperature": 0}, {"top_k": 1}, {"top_p": 0.0}),
        *({"temperature": 1e-30}, {"temperature": 1e-300, "top_p": 0.9}),
    ],
)
def test_one_choice_is_the_most_likely_and_of_equals_the_first(options):
    logits = [0.5, 3.0, 3.0, 1.0]
    if options.get("temperature"):
        assert set(draws(100, logits, **options)) == {1, 2}
    else:
        assert set(draws(20, logits, **options)) == {1}


def test_limits_among_equals_keep_the_smaller_ids():
    assert set(draws(200, [1.0] * 6, top_k=3)) == {0, 1, 2}
    assert set(draws(200, [1.0] * 8, top_p=0.5)) == {0, 1, 2, 3}
    assert set(draws(300, [2.0, 1.0, 1.0, 1.0], top_k=3)) == {0, 1, 2}


@given(
    logits=st.lists(st.integers(-6, 6), min_size=1, max_size=40),
    top_k=st.one_of(st.none(), st.integers(1, 45)),
    top_p=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_a_draw_is_among_the_most_likely(logits, top_k, top_p, seed):
    generator = torch.Generator().manual_seed(seed)
    token = draw(logits, generator, top_k=top_k, top_p=top_p)
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    weights = np.exp(np.array([logits[i] for i in order], np.float64))
    before = (weights.cumsum() - weights) / weights.sum()
    allowed = [i for i, share in zip(order, before, strict=True) if share < top_p + 1e-6]
    assert token in (allowed or order[:1])


def test_a_draw_takes_one_number_and_the_most_likely_token_none():
    generator = torch.Generator().manual_seed(0)
    draw(LOGITS, generator, temperature=0)
    first = torch.rand((), generator=generator, dtype=torch.float64)
    draw(LOGITS, generator, top_p=0.5)
    third = torch.rand((), generator=generator, dtype=torch.float64)
    other = torch.rand(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert [first, third] == [other[0], other[2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_context_that_exploded_is_said(bad, temperature):
    with pytest.raises(DivergedError, match="not finite"):
        draw([0.0, bad, 1.0], temperature=temperature)


def test_a_penalty_divides_positive_logits_and_multiplies_the_others():
    logits, seen = np.array([0.5, -1.0, -1.0, -1.0], np.float32), {0, 1, 2}
    penalised = np.array([0.25, -2.0, -2.0, -1.0], np.float32)
    for seed in range(40):
        draws = [
            choose(given, GenerationConfig(**PLAIN | options), generator, came)
            for given, options, came, generator in (
                (logits, {"repetition_penalty": 2.0}, seen, torch.Generator().manual_seed(seed)),
                (penalised, {}, (), torch.Generator().manual_seed(seed)),
            )
        ]
        assert draws[0] == draws[1]
    assert logits.tolist() == [0.5, -1.0, -1.0, -1.0]  # they are the caller's
    greedy = GenerationConfig(temperature=0, repetition_penalty=2.0)
    logits = np.array([2.0, -1.0, 1.5, -3.0], np.float32)
    assert choose(logits, greedy, torch.Generator(), {0, 1}) == 2
