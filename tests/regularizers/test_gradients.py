"""Gradients: right, there, and what they do to collapsed contexts."""

import pytest
import torch
from torch.nn import functional as F

from .cases import TRAINING_VARIANTS, D, N, batch, build, gradient, label, trains


def test_gradient_is_finite_and_not_zero(training_variant):
    regularizer = build(training_variant)
    for seed in range(2):
        found = gradient(regularizer, *batch(seed=seed, dtype=torch.float32))
        assert found.isfinite().all()
        assert found.norm() > 1e-4


def test_gradient_of_a_single_context(training_variant):
    found = gradient(build(training_variant), *batch(1, dtype=torch.float32))
    assert found.isfinite().all()
    assert found.norm() > 1e-4


# In past-contexts, those of the same batch are past for each other and carry no gradient as such.
DIFFERENTIABLE = [
    (variant, n)
    for variant in TRAINING_VARIANTS
    for n in (1, 7)
    if n == 1 or variant[0] != "past-contexts"
]


@pytest.mark.parametrize(
    ("variant", "n"), DIFFERENTIABLE, ids=[f"{label(v)}-{n}" for v, n in DIFFERENTIABLE]
)
def test_gradient_is_the_derivative_of_the_value(variant, n):
    regularizer = build(variant, 5).double()
    regularizer(batch(n, 5, seed=1)[0], tokens_N=torch.arange(n))
    # Frozen statistics make the loss a function of the contexts alone.
    regularizer.eval()
    contexts, tokens = batch(n, 5, seed=2)
    contexts.requires_grad_()
    assert torch.autograd.gradcheck(lambda c: regularizer(c, tokens_N=tokens), contexts)


def test_past_contexts_have_no_gradient_as_past():
    regularizer = build(("past-contexts", {"num_contexts": 2}), 5).double().eval()
    contexts, tokens = batch(4, 5)
    found = gradient(regularizer, contexts, tokens)
    past = torch.cat([regularizer.past_kD, F.normalize(contexts, dim=1)])

    def alone(context, n):
        cosines = past[n : n + 2] @ F.normalize(context, dim=0)
        return cosines.square().mean() / 4

    for n in range(4):
        expected = torch.autograd.functional.jacobian(lambda c, n=n: alone(c, n), contexts[n])
        torch.testing.assert_close(found[n], expected)


def test_evaluation_has_the_gradient_of_training(training_variant):
    expected = gradient(build(training_variant).train(), *batch())
    found = gradient(build(training_variant).eval(), *batch())
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "variant",
    [
        ("none", {}),
        ("ema-variance", {"gradient": "detached"}),
        ("ema-variance", {"gradient": "detached", "form": "mean"}),
    ],
    ids=label,
)
def test_variants_that_train_nothing_say_so(variant):
    assert not trains(variant)
    contexts, tokens = batch()
    loss = build(variant)(contexts.requires_grad_(), tokens_N=tokens)
    assert not loss.requires_grad


def centred_with_variance(variance_D):
    """Contexts with mean 0 and population variance `variance_D`."""
    contexts, _ = batch(N, len(variance_D))
    contexts -= contexts.mean(0)
    return contexts * (variance_D / contexts.square().mean(0)).sqrt()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("running", ["initial", "uneven"])
def test_strength_does_not_depend_on_momentum(momentum, running):
    """Where the batch has the running variance, the gradient is the same at every momentum.

    Elsewhere the running variance itself depends on the momentum, as it must.
    """
    v_D = torch.linspace(0.3, 2, D, dtype=torch.float64)
    if running == "initial":
        v_D = torch.ones_like(v_D)
    contexts = centred_with_variance(v_D)
    expected = {
        ("ema-variance", "per-dimension"): -2 * contexts / (N * D * (v_D + 0.01) ** 2),
        ("ema-variance", "mean"): -2 * contexts / (N * D * (v_D.mean() + 0.01) ** 2),
        ("distribution", "ema"): 4 * contexts * (v_D - 1) / (N * D),
    }
    for (name, choice), gradient_ND in expected.items():
        key = "form" if name == "ema-variance" else "statistics"
        regularizer = build((name, {key: choice, "momentum": momentum})).double()
        regularizer.variance_D.copy_(v_D)
        found = gradient(regularizer, contexts, torch.arange(N))
        torch.testing.assert_close(found, gradient_ND)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_strength_of_another_variance_than_the_running_one(momentum):
    """Only the statistic in the denominator depends on the momentum: v̂ = μ + (1-μ) b."""
    b = 0.2
    contexts = centred_with_variance(torch.full((D,), b, dtype=torch.float64))
    regularizer = build(("ema-variance", {"momentum": momentum})).double()
    found = gradient(regularizer, contexts, torch.arange(N))
    denominator = (momentum + (1 - momentum) * b + 0.01) ** 2
    torch.testing.assert_close(found, -2 * contexts / (N * D * denominator))


def test_running_distribution_pulls_as_hard_as_the_batch():
    contexts, tokens = batch()
    running = build(("distribution", {"statistics": "ema"})).double()
    running.mean_D.copy_(contexts.mean(0))
    running.variance_D.copy_(contexts.var(0, unbiased=False))
    expected = gradient(build(("distribution", {})), contexts, tokens)
    torch.testing.assert_close(gradient(running, contexts, tokens), expected)


def effective_rank(contexts):
    sigma = torch.linalg.svdvals(contexts.double())
    p = sigma / sigma.sum()
    return torch.special.entr(p).sum().exp().item()


# Statistics of momentum 0.99 overshoot: their rank swings long after the others have settled.
SPREAD = [
    (("ema-variance", {}), 9),
    (("distribution", {}), 13),
    (("distribution", {"statistics": "ema"}), 9),
    (("covariance-ema", {}), 13),
    (("past-contexts", {}), 13),
    (("fixed-dimensions", {}), 13),
]


@pytest.mark.parametrize(("variant", "least"), SPREAD, ids=[label(v) for v, _ in SPREAD])
def test_collapsed_contexts_spread(variant, least):
    """Contexts of one direction, under LayerNorm as in the model, fill the 15 dimensions left."""
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(16, generator=generator) + 0.01 * torch.randn(256, 16, generator=generator)
    tokens = torch.randint(0, 1000, (256,), generator=generator)
    assert effective_rank(F.layer_norm(free, (16,))) < 1.5
    free.requires_grad_()
    regularizer = build(variant, 16)
    optimizer = torch.optim.Adam([free], lr=0.01)
    for _ in range(1000):
        optimizer.zero_grad()
        regularizer(F.layer_norm(free, (16,)), tokens_N=tokens).backward()
        optimizer.step()
    assert effective_rank(F.layer_norm(free.detach(), (16,))) > least
