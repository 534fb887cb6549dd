"""Reconstruction of what a context came from."""

import pytest
import torch
from recurrence import D, E, T, draw

from newllm_core.model.decoder import ReconstructionDecoder


def make_decoder():
    decoder = ReconstructionDecoder(D, E, "mlp")
    decoder.initialise(torch.Generator().manual_seed(0))
    return decoder.double()


def test_values_equal_the_formula():
    decoder, contexts = make_decoder(), draw(T, D)
    hidden = (contexts @ decoder.hidden.weight.T + decoder.hidden.bias).clamp(min=0)
    expected = hidden @ decoder.output.weight.T + decoder.output.bias
    assert expected.shape == (T, D + E)
    torch.testing.assert_close(decoder(contexts), expected, rtol=0, atol=1e-12)


def test_a_linear_one_is_one_matrix():
    decoder, contexts = ReconstructionDecoder(D, E, "linear"), draw(T, D)
    decoder = decoder.double()
    decoder.initialise(torch.Generator().manual_seed(0))
    assert [parameter.shape for parameter in decoder.parameters()] == [(D + E, D), (D + E,)]
    expected = contexts @ decoder.output.weight.T + decoder.output.bias
    torch.testing.assert_close(decoder(contexts), expected, rtol=0, atol=1e-12)


def test_the_loss_compares_with_previous_context_then_token():
    decoder, contexts = make_decoder(), draw(T, D)
    previous, tokens = draw(T, D, seed=1), draw(T, E, seed=2)
    squares = (decoder(contexts) - torch.cat([previous, tokens], dim=1)) ** 2
    found = decoder.loss(contexts, previous=previous, tokens=tokens)
    assert found.item() == pytest.approx(squares.sum().item() / (T * (D + E)), rel=1e-6)


def test_no_gradient_reaches_the_targets():
    decoder = make_decoder()
    contexts, previous, tokens = (draw(T, size, seed=size).requires_grad_() for size in (D, D, E))
    loss = decoder.loss(contexts, previous=previous, tokens=tokens)
    gradients = torch.autograd.grad(loss, [contexts, previous, tokens], allow_unused=True)
    assert gradients[0].abs().max() > 1e-4
    assert gradients[1:] == (None, None)
