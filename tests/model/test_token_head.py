"""The token head: plain, tied, and tied through a projection."""

import numpy as np
import pytest
import torch
from recurrence import D, E, V, draw, draw_tokens, make_model, single_logits

from newllm_core.config import ModelConfig, Phase2Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase2.source import Source, drop


def test_logits_of_a_tied_head_go_through_the_projection():
    model = make_model(tie_weights=True)
    head = model.heads()[0]
    context = draw(5, D)
    by_hand = context @ head.projection.weight.T + head.projection.bias
    assert by_hand.shape == (5, E)
    by_hand = by_hand @ model.embedding.weight.T + head.bias
    torch.testing.assert_close(model.logits([context])[0], by_hand, rtol=0, atol=1e-12)
    single = single_logits(model, context[2])
    torch.testing.assert_close(single, by_hand[2].detach(), rtol=0, atol=1e-12)


def test_only_tied_heads_have_a_projection():
    assert make_model(tie_weights=False).heads()[0].projection is None
    assert make_model(tie_weights=True, context_dim=E).heads()[0].projection.weight.shape == (E, E)


@pytest.mark.parametrize("tied", [False, True])
def test_a_hidden_layer_adds_what_no_line_has(tied):
    model = make_model(tie_weights=tied, head_hidden=11)
    head = model.heads()[0]
    assert (head.weight is model.embedding.weight) == tied
    assert head.weight.shape == (V, E)
    context = draw(5, D)
    layer = head.projection
    hidden = torch.nn.functional.gelu(context @ layer.hidden.weight.T + layer.hidden.bias)
    hidden = hidden * (context @ layer.value.weight.T + layer.value.bias)
    assert hidden.shape == (5, 11)
    width = context @ layer.skip.weight.T + layer.skip.bias
    width = width + hidden @ layer.output.weight.T + layer.output.bias
    by_hand = width @ head.weight.T + head.bias
    torch.testing.assert_close(model.logits([context])[0], by_hand, rtol=0, atol=1e-12)
    single = single_logits(model, context[2])
    torch.testing.assert_close(single, by_hand[2].detach(), rtol=0, atol=1e-12)
    # Drawn from the seed like the rest, and none of it is left at zero.
    assert all(p.abs().max() > 0 for p in layer.parameters() if p.ndim == 2)
    again = make_model(tie_weights=tied, head_hidden=11).heads()[0].projection
    assert torch.equal(again.hidden.weight, layer.hidden.weight)


@pytest.mark.parametrize("shape", [{}, {"head_hidden": 11}, {"tie_weights": True}])
def test_a_head_adds_what_it_has_for_the_last_token(shape):
    model = make_model(head_reads_token=True, num_heads=2, **shape)
    plain = make_model(num_heads=2, **shape)
    contexts, last = [draw(2, 3, D), draw(2, 3, D)], draw_tokens(2, 3)
    of_each = {name: value for name, value in model.named_parameters() if "last_token" in name}
    assert [table.shape for table in of_each.values()] == [(V, D), (V, D)]
    rest = model.state_dict().items()
    plain.load_state_dict({name: value for name, value in rest if name not in of_each})
    tables = [head.last_token.weight for head in model.heads()]
    moved = [c + table[last] for c, table in zip(contexts, tables, strict=True)]
    for found, wanted in zip(model.logits(contexts, last), plain.logits(moved), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    # Before any token was read, there is none to read.
    first = single_logits(model, contexts[1][0, 0])
    torch.testing.assert_close(first, plain.logits(contexts)[1][0, 0].detach(), rtol=0, atol=1e-12)
    second = single_logits(model, contexts[1][0, 0], int(last[0, 0]))
    torch.testing.assert_close(second, plain.logits(moved)[1][0, 0].detach(), rtol=0, atol=1e-12)
    # A new head has nothing for any token yet.
    fresh = LanguageModel(ModelConfig(head_reads_token=True), V)
    assert fresh.heads()[0].last_token.weight.abs().max() == 0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_parameters_are_counted(tied, heads):
    model = make_model(tie_weights=tied, num_heads=heads)
    of_heads = heads * (V * D + V)
    if tied:  # the last head has a projection, and no matrix of its own
        of_heads = heads * (V * E + V + E * D + E) - V * E
    width = D + E
    of_cells = 2 * (width * width + width + 2 * width)
    assert model.num_parameters() == V * E + of_cells + of_heads


def test_the_projection_starts_with_outputs_of_the_scale_of_its_inputs():
    config = ModelConfig(context_dim=400, embed_dim=100, tie_weights=True)
    model = LanguageModel(config, 50)
    projected = model.heads()[0].project(torch.randn(1000, 400))
    assert projected.std().item() == pytest.approx(1.0, rel=0.05)


def cross_entropy(model, contexts, targets, generator, **dropout):
    config = Phase2Config(**dropout)
    source = Source(model, np.empty(0, np.int64), end_id=0, config=config, weights=[1.0])
    rows, places = [len(targets)], np.arange(len(targets))
    given = [contexts], targets, targets, places
    return source.cross_entropy(*given, generator=generator, rows=rows)[0]


def test_the_loss_trains_the_projection_and_its_dropout_is_behind_it():
    model = make_model(tie_weights=True)
    contexts, targets = draw(64, D), draw_tokens(64)
    generator = torch.Generator().manual_seed(1)

    def loss(dropout):
        return cross_entropy(model, contexts, targets, generator.manual_seed(1), dropout=dropout)

    loss(0.0).backward()
    head = model.heads()[0]
    expected = torch.nn.functional.cross_entropy(head(contexts), targets)
    assert loss(0.0).item() == pytest.approx(expected.item(), abs=1e-9)
    wanted = torch.autograd.grad(expected, head.projection.weight)[0]
    torch.testing.assert_close(head.projection.weight.grad, wanted, rtol=1e-9, atol=1e-11)
    ones = torch.ones(64, E, dtype=torch.float64)
    doubled = drop(ones, 0.5, generator.manual_seed(1), [64])
    assert 0.4 < (doubled == 0).double().mean() < 0.6
    dropped = head.project(contexts) * doubled @ head.weight.T + head.bias
    expected = torch.nn.functional.cross_entropy(dropped, targets)
    assert loss(0.5).item() == pytest.approx(expected.item(), abs=1e-9)


def test_dropout_inside_a_head_takes_what_is_read_and_units():
    model = make_model(head_hidden=11, head_reads_token=True)
    head = model.heads()[0]
    context, last = draw(6, D), draw_tokens(6)
    shares = []

    def halve(values):
        shares.append(values.shape[-1])
        return values / 2

    layer, read = head.projection, (context + head.last_token.weight[last]) / 2
    units = torch.nn.functional.gelu(layer.hidden(read)) * layer.value(read) / 2
    wanted = layer.skip(read) + units @ layer.output.weight.T + layer.output.bias
    torch.testing.assert_close(head.project(context, last, halve), wanted, rtol=0, atol=1e-12)
    assert shares == [D, 11]


def test_dropout_inside_a_head_is_drawn_before_the_one_behind_it():
    model = make_model(head_hidden=11)
    head, contexts, inputs = model.heads()[0], draw(64, D), draw_tokens(64)
    generator = torch.Generator().manual_seed(1)
    found = cross_entropy(model, contexts, inputs, generator, dropout=0.5, head_dropout=0.25)
    generator.manual_seed(1)
    made = head.project(contexts, None, lambda values: drop(values, 0.25, generator, [64]))
    kept = drop(made, 0.5, generator, [64])
    logits = kept @ head.weight.T + head.bias
    wanted = torch.nn.functional.cross_entropy(logits, inputs)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
