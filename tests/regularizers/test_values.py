"""Values: against formulas in numpy, at known points, and in every precision."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.regularizers.fixed_dimensions import own_dimensions

from .cases import OWN, D, N, batch, build
from .formulas import REFERENCES


def reference(variant, regularizer, dim=D):
    name, options = variant
    if name == "past-contexts":
        return REFERENCES[name](dim, **options, past=regularizer.past_kD.cpu().numpy().copy())
    return REFERENCES[name](dim, **options)


def test_every_regularizer_of_our_own_has_a_formula():
    assert sorted(OWN) == sorted(REFERENCES)


@pytest.mark.parametrize("sizes", [(N, N, N), (N, 1, 5), (1, 5, N)])
def test_value_is_the_formula_over_three_calls(variant, sizes, exact_device):
    regularizer = build(variant).double().to(exact_device)
    formula = reference(variant, regularizer)
    for seed, n in enumerate(sizes):
        contexts, tokens = batch(n, seed=seed)
        found = regularizer(contexts.to(exact_device), tokens_N=tokens.to(exact_device))
        assert found.shape == ()
        assert found.dtype == torch.float64
        expected = formula.step(contexts.numpy(), tokens.numpy())
        np.testing.assert_allclose(found.item(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2])
def test_value_is_the_formula_in_one_or_two_dimensions(variant, dim):
    regularizer = build(variant, dim).double()
    formula = reference(variant, regularizer, dim)
    contexts, tokens = batch(dim=dim)
    expected = formula.step(contexts.numpy(), tokens.numpy())
    found = regularizer(contexts, tokens_N=tokens).item()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_float32_buffers_serve_float64_contexts(variant):
    exact, mixed = build(variant).double(), build(variant)
    for seed in range(2):
        contexts, tokens = batch(seed=seed)
        found = mixed(contexts, tokens_N=tokens)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, exact(contexts, tokens_N=tokens), rtol=1e-5, atol=1e-6)
    buffers = [b for b in mixed.buffers() if b.is_floating_point()]
    assert all(b.dtype == torch.float32 for b in buffers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_contexts_are_treated_in_float32(variant, dtype):
    contexts, tokens = batch(dtype=dtype)
    found = build(variant)(contexts, tokens_N=tokens)
    expected = build(variant)(contexts.float(), tokens_N=tokens)
    assert variant[0] == "none" or found.dtype == torch.float32
    assert found.item() == expected.item()


def test_autocast_does_not_round(variant):
    contexts, tokens = batch(dtype=torch.float32)
    expected = build(variant)(contexts, tokens_N=tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = build(variant)(contexts, tokens_N=tokens)
    assert found.item() == expected.item()


@pytest.mark.parametrize("extreme", [0.0, 1e-30, 1e6])
@pytest.mark.parametrize("n", [1, N])
def test_equal_contexts_of_any_size_are_finite(variant, extreme, n):
    regularizer = build(variant)
    contexts = torch.full((n, D), extreme, requires_grad=True)
    tokens = torch.arange(n)
    for _ in range(2):
        loss = regularizer(contexts, tokens_N=tokens)
        assert loss.isfinite()
        if loss.requires_grad:
            loss.backward()
            assert contexts.grad.isfinite().all()


def white(n, dim):
    """Contexts whose mean is 0 and covariance I, up to rounding."""
    raw = torch.randn(n, dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    q, _ = torch.linalg.qr(raw - raw.mean(0))
    return q * n**0.5


@pytest.mark.parametrize("name", ["covariance-ema", "distribution"])
def test_white_contexts_are_the_minimum(name):
    regularizer = build((name, {})).double()
    contexts = white(N, D).requires_grad_()
    loss = regularizer(contexts, tokens_N=torch.arange(N))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-24)
    assert contexts.grad.abs().max().item() == pytest.approx(0, abs=1e-12)
    for seed in range(5):
        nearby = contexts.detach() + 0.01 * batch(seed=seed)[0]
        assert build((name, {})).double()(nearby, tokens_N=torch.arange(N)) > 1e-7


def test_correlation_is_seen_by_the_covariance_alone():
    line = white(N, 1) * torch.ones(D, dtype=torch.float64)
    tokens = torch.arange(N)
    assert build(("distribution", {})).double()(line, tokens_N=tokens) < 1e-24
    # One batch is a tenth of the running covariance: D-1 entries of 0.1 in each of D rows.
    seen = build(("covariance-ema", {"momentum": 0.9})).double()(line, tokens_N=tokens)
    assert seen.item() == pytest.approx((D - 1) * 0.1**2)


def test_past_contexts_at_known_angles():
    regularizer = build(("past-contexts", {"num_contexts": 2})).double()
    equal = torch.ones(4, D, dtype=torch.float64)
    regularizer(equal, tokens_N=torch.arange(4))
    assert regularizer(3 * equal, tokens_N=torch.arange(4)).item() == pytest.approx(1)
    assert regularizer(-equal, tokens_N=torch.arange(4)).item() == pytest.approx(1)
    going_round = torch.eye(D, dtype=torch.float64)[[0, 1, 2, 0, 1, 2]]
    regularizer(going_round, tokens_N=torch.arange(6))
    assert regularizer(going_round, tokens_N=torch.arange(6)).item() == 0


def test_a_batch_is_the_same_as_its_contexts_one_by_one():
    contexts, tokens = batch()
    whole, single = (build(("past-contexts", {})).double() for _ in range(2))
    expected = whole(contexts, tokens_N=tokens)
    losses = [single(contexts[i : i + 1], tokens_N=tokens[i : i + 1]) for i in range(N)]
    torch.testing.assert_close(torch.stack(losses).mean(), expected)
    torch.testing.assert_close(single.past_kD, whole.past_kD)


def test_own_dimensions_are_distinct_balanced_and_differ_between_tokens():
    vocabulary, dim, count = 50_000, 96, 24
    strides = build(("fixed-dimensions", {}), dim).strides_S
    own = own_dimensions(torch.arange(vocabulary), strides, context_dim=dim, count=count)
    assert all(len(set(row)) == count for row in own[:1000].tolist())
    uses = torch.bincount(own.flatten(), minlength=dim) / (vocabulary * count / dim)
    assert uses.min() > 0.95
    assert uses.max() < 1.05
    # Two tokens share a quarter of their dimensions on average, as random sets would.
    members = torch.zeros(vocabulary, dim).scatter_(1, own, 1)
    shared = (members[: vocabulary // 2] * members[vocabulary // 2 :]).sum(1)
    assert shared.mean().item() == pytest.approx(count * count / dim, rel=0.03)


@given(token=st.integers(0, 2**40), dim=st.integers(1, 300), share=st.floats(0, 1))
def test_own_dimensions_are_what_the_share_says(token, dim, share):
    regularizer = build(("fixed-dimensions", {"share": share}), dim)
    count = regularizer.num_dimensions
    own = own_dimensions(torch.tensor([token]), regularizer.strides_S, context_dim=dim, count=count)
    assert len(set(own[0].tolist())) == count
    assert set(own[0].tolist()) <= set(range(dim))
    assert 1 <= count <= max(1, dim - 1)
    assert abs(count - share * dim) <= 1


def test_own_dimensions_of_a_token_never_change():
    regularizer = build(("fixed-dimensions", {}), 16)
    tokens = torch.tensor([0, 1, 50_256], dtype=torch.int32)
    own = own_dimensions(tokens, regularizer.strides_S, context_dim=16, count=4)
    assert own.tolist() == [[0, 1, 2, 3], [0, 13, 10, 7], [8, 7, 6, 5]]
