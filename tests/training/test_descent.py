"""Steps from one row against the same steps with whole gradients and a plain Adam."""

import copy

import pytest
import torch
from naive_phase1 import make_config, make_window
from newllm_core.model.one_row import collect
from newllm_core.regularizers.build import build_regularizers
from newllm_core.training.descent import Descent, NarrowDescent, OneRowDescent
from newllm_core.training.matrix_step import MatrixStep
from recurrence import D, E, draw, draw_tokens, make_model

from newllm_core import native
from newllm_core.model import narrow, one_row
from newllm_core.runtime.progress import Silent
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.published import naive_phase1
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase1.window import Window

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(
    native.library() is None, reason="the loops in C were not compiled when newllm was installed"
)
STEPS = 12


class PlainDescent(Descent):
    """Adam as it is in textbooks, on whole gradients."""

    def __init__(self, parameters, clip):
        super().__init__(parameters, clip)
        self.optimizer = torch.optim.Adam(parameters, foreach=False, fused=False)


def trained(model, config, kind, window=None):
    """Losses, parameters and optimizer state after a few tokens, with a trainer's own loop."""
    model = copy.deepcopy(model)
    count = sum(model.config.layer_structure) if config.phase1.apply_to == "every-layer" else 1
    regularizers, _ = build_regularizers(config, count)
    window = window or make_window(STEPS, readings=1)
    tokens = {"train": window.tokens_T.numpy(), "validation": window.tokens_T.numpy()}
    trainer = Phase1Trainer(model, regularizers, tokens, config, CPU, Silent())
    assert type(trainer.descent) is OneRowDescent
    if kind is not OneRowDescent:
        trainer.descent = kind(trainer.parameters, config.phase1.gradient_clip)
    trainer.descent.optimizer.param_groups[0]["lr"] = config.phase1.learning_rate
    losses = []
    for batch in batches(model, window, config.phase1, torch.Generator()):
        terms = trainer.terms(window, batch)
        trainer.step(terms)
        window.store(batch.positions_N, terms.contexts_NC)
        losses.append(terms.total.item())
    return losses, trainer


@pytest.mark.parametrize("objective", ["cvfp", "reconstruction"])
@pytest.mark.parametrize("apply_to", ["final", "every-layer"])
@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("shape", [{}, {"update": "gated"}, {"hidden_dim": 17}])
def test_steps_from_one_row_are_those_of_adam(objective, apply_to, clip, shape):
    config = make_config(
        engine="online",
        objective=objective,
        apply_to=apply_to,
        gradient_clip=clip,
        learning_rate=0.03,
    )
    model = make_model(reconstruction=objective == "reconstruction", **shape)
    losses, found = trained(model, config, OneRowDescent)
    wanted_losses, wanted = trained(model, config, PlainDescent)
    assert losses == pytest.approx(wanted_losses, rel=1e-9)
    assert max(losses) > 1.001 * min(losses)
    moved = 0
    for mine, theirs, start in zip(
        found.parameters, wanted.parameters, _trained_parts(model), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
        moved += not torch.equal(mine, start)
        state, other = (t.descent.optimizer.state[p] for t, p in ((found, mine), (wanted, theirs)))
        for name, value in other.items():
            torch.testing.assert_close(
                state[name].to(value.dtype), value, rtol=1e-8, atol=1e-14, msg=name
            )
    assert moved > len(found.parameters) / 2


@compiled
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_steps_put_off_are_made_by_the_products_that_read_the_weights(
    monkeypatch, using_threads, clip, threads
):
    using_threads(threads)
    made = []
    make = MatrixStep.make_and_multiply
    monkeypatch.setattr(
        MatrixStep, "make_and_multiply", lambda step, row: made.append(row) or make(step, row)
    )
    config = make_config(
        engine="online", objective="reconstruction", gradient_clip=clip, learning_rate=0.03
    )
    model = make_model(reconstruction=True).float()
    window = Window(draw_tokens(STEPS), draw(D, seed=1).float(), "carry")
    window.readings = 1
    losses, found = trained(model, config, OneRowDescent, copy.deepcopy(window))
    matrices = sum(p.ndim == 2 for p in found.parameters)
    assert 0 < len(made) <= (STEPS - 1) * matrices
    waiting = [p for p in found.parameters if p.data_ptr() in one_row._put_off]
    assert waiting
    before = [p.clone() for p in waiting]
    found.state()  # needs the weights of now
    assert all(not torch.equal(p, old) for p, old in zip(waiting, before, strict=True))
    assert not one_row._put_off
    wanted_losses, wanted = trained(model, config, PlainDescent, window)
    assert losses == pytest.approx(wanted_losses, rel=1e-4)
    for mine, theirs in zip(found.parameters, wanted.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@compiled
@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.bfloat16, None], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("engine", ["parallel", "streams"])
def test_narrow_gradients_make_the_same_steps(using_threads, clip, dtype, engine):
    using_threads(2)
    config = make_config(
        engine=engine,
        objective="reconstruction",
        gradient_clip=clip,
        learning_rate=0.01,
        batch_tokens=16,
        num_streams=8,
    )
    start = make_model(reconstruction=True).float()
    start.compute_dtype = dtype
    results = []
    for kind in (NarrowDescent, Descent):
        model = copy.deepcopy(start)
        window = Window(draw_tokens(64), torch.zeros(D), "carry")
        tokens = {"train": window.tokens_T.numpy(), "validation": window.tokens_T.numpy()}
        regularizers, _ = build_regularizers(config, 1)
        trainer = Phase1Trainer(model, regularizers, tokens, config, CPU, Silent())
        assert type(trainer.descent) is NarrowDescent
        trainer.descent = kind(trainer.parameters, clip)
        trainer.descent.optimizer.param_groups[0]["lr"] = 0.01
        losses, copied = [], []
        with trainer.descent.finished_afterwards():
            for _ in range(6):
                for batch in batches(model, window, config.phase1, torch.Generator()):
                    terms = trainer.terms(window, batch)
                    trainer.step(terms)
                    window.store(batch.positions_N, terms.contexts_NC)
                    losses.append(terms.total.item())
                    copied.append(len(narrow._copies))
                window.finish_reading()
        assert not narrow._copies
        uses_copies = kind is NarrowDescent and dtype is torch.bfloat16
        assert copied == [4 if uses_copies else 0] * len(losses)
        results.append((losses, trainer))
    (losses, found), (wanted_losses, wanted) = results
    assert len(losses) >= 6
    # A weight in bfloat16 that is rounded the other way is felt by all later steps.
    assert losses == pytest.approx(wanted_losses, rel=1e-4 if dtype is None else 2e-3)
    assert max(losses) > 1.1 * min(losses)
    moved = apart = 0.0
    for mine, theirs, before in zip(
        found.parameters, wanted.parameters, _trained_parts(start), strict=True
    ):
        moved += float((theirs - before).detach().square().sum())
        apart += float((theirs - mine).detach().square().sum())
        state, other = (t.descent.optimizer.state[p] for t, p in ((found, mine), (wanted, theirs)))
        assert state.keys() == other.keys()  # none where no gradient ever came
        for name, value in state.items():
            difference = (value - other[name]).norm()
            assert difference <= (1e-3 if dtype is None else 0.2) * other[name].norm()
    assert moved > 0
    assert apart**0.5 < (1e-3 if dtype is None else 0.02) * moved**0.5


def _trained_parts(model):
    parts = [model.blocks] if model.decoder is None else [model.blocks, model.decoder]
    return [p for part in parts for p in part.parameters()]


def test_online_has_the_losses_of_the_published_loop():
    config = make_config(engine="online", gradient_clip=0.05, learning_rate=0.02)
    # The published layers begin with norms of gain 1 and shift 0.
    model = make_model(std=0.0)
    window = Window(draw_tokens(STEPS), torch.zeros(D).double(), "zero")
    window.readings = 1
    window.previous_TC = draw(STEPS, D, seed=2)
    targets, tokens = window.previous_TC.clone(), window.tokens_T
    losses, _ = trained(model, config, OneRowDescent, window)
    regularizers, _ = build_regularizers(config, 1)
    published = naive_phase1(
        model,
        regularizers[0],
        tokens,
        targets,
        weight=config.phase1.dist_reg_weight,
        learning_rate=0.02,
        gradient_clip=0.05,
    )
    assert losses == pytest.approx(list(published), rel=1e-9)


def test_outside_of_a_step_gradients_are_whole():
    model = make_model()
    layer = model.layers()[0]
    context, token = draw(1, D, seed=4), draw(1, E, seed=5)
    with collect() as products:
        layer(context=context, token=token)[0].sum().backward()
    assert layer.context_weight.grad is None
    assert layer.bias.grad is not None
    layer(context=context, token=token)[0].sum().backward()
    product = next(p for p in products if p.matrix is layer.context_weight)
    whole = layer.context_weight.grad
    torch.testing.assert_close(torch.outer(product.left, product.right), whole[: len(product.left)])
    assert whole.abs().sum() > 0
