import numpy as np
import pytest
import torch
from markov_text import END, checkpoint, dataset
from recurrence import text_formula, token_formula
from torch.nn import functional as F

from newllm_core.config import Phase2Config
from newllm_core.errors import ConfigError
from newllm_core.model.heads import head_weights, weighted_mean
from newllm_core.runtime.progress import Silent
from newllm_core.settings import resolve
from newllm_core.training.phase2 import context_store
from newllm_core.training.phase2.context_store import ContextStore
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.training.phase2.frozen import SEGMENT_ROWS, FrozenContexts
from newllm_core.training.phase2.source import Terms, drop
from newllm_core.training.phase2.steps import Steps, one_cycle

GENERATOR = torch.Generator().manual_seed(0)
SIX = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)


def test_head_weights_as_configured_and_interpolated():
    assert head_weights(SIX, 6) == pytest.approx(SIX)
    assert head_weights(SIX, 1) == [1.2]
    assert head_weights(SIX, 2) == pytest.approx([0.5, 1.2])
    # Places 0, 5/3, 10/3 and 5 on the line of six.
    assert head_weights(SIX, 4) == pytest.approx([0.5, 0.7 + 0.1 * 2 / 3, 0.9 + 0.1 / 3, 1.2])
    assert head_weights((2.0,), 3) == [2.0, 2.0, 2.0]
    with pytest.raises(ConfigError, match="above zero"):
        head_weights((0.0, 1.0, 0.0), 2)


def test_the_multi_head_loss_is_the_weighted_mean():
    losses = [torch.tensor(v) for v in (6.0, 5.0, 4.0, 3.0, 2.0, 1.0)]
    expected = (3.0 + 3.5 + 3.2 + 2.7 + 2.0 + 1.2) / 5.1
    assert float(weighted_mean(losses, SIX)) == pytest.approx(expected)


def small_run(*, num_heads=2, device="cpu", **options):
    # Odd sizes: 3 streams of 19 of 59 tokens, windows of 7, 7 and 5.
    start = checkpoint(
        num_heads=num_heads,
        context_dim=5,
        embed_dim=7,
        options={"hidden_dim": 9},
        layer_structure=(1, 2),
    )
    model = start.model.double().to(device)
    config = Phase2Config(num_streams=3, bptt=7, dropout=0.0, **options)
    tokens = dataset().train.tokens[:59]
    weights = head_weights(config.head_weights, num_heads)
    source = FineTuning(model, tokens, end_id=END, config=config, weights=weights)
    assert (source.streams.count, source.num_steps, source.num_tokens) == (3, 3, 57)
    return model, tokens, weights, source


def naive_window(model, tokens, weights, starts, begin, end, *, first=0):
    """Loss of one window, token by token, and the states of the streams after it."""
    losses, states = [[], []], []
    for stream, state in enumerate(starts):
        for step in range(begin, end):
            position = (first + 19 * stream + step) % len(tokens)
            read = int(tokens[position - 1]) if position else END
            after_first, _, state = token_formula(model, read, state)
            for head, context in enumerate((after_first, state)):
                logits = model.token_output[head](context)
                losses[head].append(-logits.log_softmax(-1)[int(tokens[position])])
        states.append(state.detach())
    means = [torch.stack(of_head).mean() for of_head in losses]
    total = (weights[0] * means[0] + weights[1] * means[1]) / (weights[0] + weights[1])
    return total, states


# Streams of 19 begin .618 of their windows of 7 later in each epoch, and .618 of a window; the last
# one goes on at the beginning of the text.
@pytest.mark.parametrize(("epoch", "first"), [(0, 0), (1, 11), (2, 2)])
def test_windows_equal_a_naive_computation_with_every_gradient(exact_device, epoch, first):
    model, tokens, weights, source = small_run(device=exact_device)
    for _ in range(epoch):
        source.begin_epoch()
    # Nothing reads the token that leaves the last layer: what makes it has no gradient.
    last = model.cells()[-1]
    unread = {*last.norm_token.parameters(), *last.network.to_token.parameters()}
    parameters = [p for p in model.parameters() if p not in unread]
    states = [model.start(1)[0]] * 3
    windows = [(0, 7), (7, 14), (14, 19)]
    for terms, (begin, end) in zip(source.losses(GENERATOR), windows, strict=True):
        expected, states = naive_window(model, tokens, weights, states, begin, end, first=first)
        torch.testing.assert_close(terms.total, expected, rtol=1e-10, atol=1e-10)
        assert terms.plain["cross-entropy"].item() == pytest.approx(expected.item(), abs=1e-10)
        assert terms.num_tokens == 3 * (end - begin)
        for a, b in zip(
            torch.autograd.grad(terms.total, parameters),
            torch.autograd.grad(expected, parameters),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_input_dropout_hides_entries_of_tokens_from_the_recurrence():
    model, tokens, weights, source = small_run(input_dropout=0.5)
    terms = next(source.losses(torch.Generator().manual_seed(3)))
    ones = torch.ones(3 * 7, 7, dtype=torch.float64)
    kept = drop(ones, 0.5, torch.Generator().manual_seed(3), [21]).view(3, 7, 7)
    losses = [[], []]
    for stream in range(3):
        state = torch.zeros(5, dtype=torch.float64)
        for step in range(7):
            position = 19 * stream + step
            read = int(tokens[position - 1]) if position else END
            x = F.layer_norm(model.embedding.weight[read], (7,)) * kept[stream, step]
            contexts = model.step(context=state, token=x)
            state = contexts[-1]
            for of_head, logits in zip(losses, model.logits(contexts), strict=True):
                of_head.append(-logits.log_softmax(-1)[int(tokens[position])])
    expected = weighted_mean([torch.stack(of_head).mean() for of_head in losses], weights)
    assert terms.total.item() == pytest.approx(expected.item(), abs=1e-10)


def extra_terms(model, options=None, **phase2):
    return ExtraTerms(resolve({"phase2": phase2, "objective": options or {}}), model, {})


def test_reconstruction_term_has_its_formula_and_stops_at_the_target():
    torch.manual_seed(0)
    model = checkpoint(options={}).model
    extra = extra_terms(model, {"context_weight": 1.0}, objective="reconstruction")
    decoder = extra.objective
    contexts = torch.randn(2, 5, 16, requires_grad=True)
    first = torch.randn(2, 16, requires_grad=True)
    inputs = torch.randint(12, (2, 5))
    found = extra(model, contexts, start_BC=first, inputs_BT=inputs, streams=[2], others=None)
    assert list(found) == list(extra.weights) == ["reconstruction"]
    found["reconstruction"].backward()

    errors, gradient = [], torch.zeros(2, 5, 16)
    for stream in range(2):
        for step in range(5):
            c = contexts[stream, step].detach().requires_grad_()
            before = (first[stream] if step == 0 else contexts[stream, step - 1]).detach()
            x = F.layer_norm(model.embedding.weight[inputs[stream, step]], (16,)).detach()
            hidden = torch.relu(decoder.hidden.weight @ c + decoder.hidden.bias)
            out = decoder.output.weight @ hidden + decoder.output.bias
            error = (out - torch.cat([before, x])).square().mean() / 10
            gradient[stream, step] = torch.autograd.grad(error, c)[0]
            errors.append(error.detach())
    torch.testing.assert_close(found["reconstruction"].detach(), torch.stack(errors).sum())
    torch.testing.assert_close(contexts.grad, gradient)
    assert first.grad is None
    assert model.embedding.weight.grad is None
    assert decoder.output.weight.grad.abs().sum() > 0


def test_total_is_cross_entropy_plus_weighted_terms():
    model, tokens, *_ = small_run()
    config = Phase2Config(num_streams=3, bptt=7, dropout=0.0)
    chosen = {"objective": "reconstruction", "objective_weight": 0.3}
    extra = extra_terms(model, **chosen, reg="distribution", reg_weight=0.05).double()
    source = FineTuning(model, tokens, end_id=END, config=config, weights=[1.0, 1.0], extra=extra)
    for terms in source.losses(GENERATOR):
        assert min(terms.plain["reconstruction"], terms.plain["distribution"]) > 0.01
        expected = terms.plain["cross-entropy"] + 0.3 * terms.plain["reconstruction"]
        expected += 0.05 * terms.plain["distribution"]
        assert terms.total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_dropout_keeps_the_mean_and_follows_its_generator():
    values = torch.ones(1000, 100)
    dropped = drop(values, 0.3, torch.Generator().manual_seed(1), [1000])
    # Four standard deviations of 100,000 draws, of a column, and of what two neighbours share.
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.006)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    lost = (dropped == 0).float()
    assert (lost.mean(0) - 0.3).abs().max() < 0.06
    assert float((lost[:, 1:] * lost[:, :-1]).mean()) == pytest.approx(0.09, abs=0.005)
    assert torch.equal(dropped, drop(values, 0.3, torch.Generator().manual_seed(1), [1000]))
    assert drop(values, 0.0, GENERATOR, [1000]) is values


@pytest.mark.parametrize("kept", [False, True], ids=["file", "kept"])
def test_frozen_batches_hold_every_row_once_and_shuffled(tmp_path, device, kept, monkeypatch):
    count = 3 * SEGMENT_ROWS + 17
    tokens = np.random.default_rng(0).integers(12, size=count).astype(np.uint16)
    start = checkpoint(num_heads=2)
    if kept:
        monkeypatch.setattr(context_store, "free_on_gpu", lambda _: 10 * count * 2 * 16 * 4)
    start.model.to(device)
    with ContextStore(tmp_path, count, (2, 16), device) as store:
        rows = torch.arange(count, device=device)[:, None, None].expand(-1, 2, 16).float()
        for positions in np.array_split(np.random.default_rng(1).permutation(count), 5):
            store.write(positions, rows[torch.from_numpy(positions).to(device)])
        source = FrozenContexts(
            start.model,
            tokens,
            store=store,
            end_id=0,
            config=Phase2Config(batch_tokens=100),
            weights=[1.0, 1.0],
            seed=0,
        )
        batches = list(source.batches())
        again = list(source.batches())
    assert [len(positions) for _, positions in batches] == [100] * 7 + [85]
    assert len(batches) == source.num_steps
    assert {rows.device.type for rows, _ in batches} == {device.type}
    places = torch.cat([rows[:, 0, 0] for rows, _ in batches]).long().cpu()
    positions = np.concatenate([positions for _, positions in batches])
    assert torch.equal(places.sort().values, torch.arange(count))
    assert positions.tolist() == places.tolist()
    assert (places.diff() == 1).float().mean() < 0.1
    assert not torch.equal(places, torch.cat([rows[:, 0, 0] for rows, _ in again]).long().cpu())


def test_frozen_contexts_are_those_of_one_carried_stream(tmp_path):
    start = checkpoint(num_heads=2, cell="gated")
    tokens = dataset().train.tokens[:1100]
    with ContextStore(tmp_path, len(tokens), (2, 16), torch.device("cpu")) as store:
        options = {"end_id": END, "config": Phase2Config(), "weights": [1.0, 1.0]}
        FrozenContexts(start.model, tokens, store=store, seed=0, **options).fill(Silent())
        stored = store.read(0, len(tokens))
    with torch.no_grad():
        exact = text_formula(start.model, [END, *tokens[:-1].tolist()], torch.zeros(16))
    torch.testing.assert_close(stored[:, 1], exact, rtol=1e-4, atol=1e-5)


def test_one_cycle_rises_linearly_and_falls_to_almost_nothing():
    rates = [one_cycle(s, total=100, peak=2.0, warmup_fraction=0.1) for s in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.001
    assert one_cycle(0, total=1, peak=2.0, warmup_fraction=0.0) == 2.0
    assert one_cycle(9, total=10, peak=2.0, warmup_fraction=1.0) == 2.0


def test_a_step_names_the_term_that_is_not_finite_and_moves_nothing():
    model = checkpoint().model
    parameters = list(model.parameters())
    steps = Steps(parameters, Phase2Config(), 5)
    before = [p.detach().clone() for p in parameters]
    one = torch.ones(())
    steps.make(Terms(sum(p.sum() for p in parameters), {"cross-entropy": one, "cvfp": one / 0}, 1))
    assert steps.change.failed
    assert "phase 2 diverged: cvfp is not finite (step 2 of 5)" in str(steps.diverged(["cvfp"]))
    assert "the gradient of cross-entropy and cvfp is" in str(steps.diverged(["gradient norm"]))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_only_matrices_decay():
    model = checkpoint(tie_weights=True).model
    parameters = list(model.parameters())
    steps = Steps(parameters, Phase2Config(weight_decay=0.1), 5)
    decaying = {
        id(p) for g in steps.optimizer.param_groups if g["weight_decay"] for p in g["params"]
    }
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decaying) == (parameter.ndim == 2), name
