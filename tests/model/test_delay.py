"""Dimensions of a context that hold the last tokens."""

import numpy as np
import pytest
import torch
from recurrence import D, V, draw, draw_tokens, make_model

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError
from newllm_core.model.counted_dims import count_dims
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent
from newllm_core.trajectory.sequential import unroll
from newllm_core.trajectory.single import SingleStream

# Three tokens, two numbers of each, after three slow dimensions.
F, K, S = 2, 3, 3


def delay_model(**shape):
    shape |= {"slow_dims": S, "delay_dims": F * K, "delay_tokens": K}
    model = make_model(context_dim=D + S + F * K, **shape)
    generator = torch.Generator().manual_seed(5)
    for buffer in model.counted.buffers():
        if buffer.ndim == 2 or len(buffer) == F:
            buffer.normal_(generator=generator)
    return model


@pytest.mark.parametrize("cell", ["residual", "mogrifier", "gru"])
def test_they_hold_the_last_tokens_in_order_and_nothing_else_knows_of_them(cell):
    model = delay_model(cell=cell)
    tokens, start = draw_tokens(4, 7), draw(4, D + S + F * K)
    found = unroll(model, tokens, start)
    line = model.counted["delay"]
    read_BTF = model.embed(tokens) @ line.weight.T + line.bias
    # Newest first; before the text what the start state held, moved on.
    held_BTF = torch.cat([start[:, D + S :].view(4, K, F).flip(1), read_BTF], 1)
    for t in range(7):
        wanted = held_BTF[:, t + 1 : t + 1 + K].flip(1).flatten(1)
        for of_block in found:
            torch.testing.assert_close(of_block[:, t, D + S :], wanted, rtol=0, atol=1e-12)
    plain = make_model(cell=cell, context_dim=D + S, slow_dims=S)
    plain.blocks.load_state_dict(model.blocks.state_dict())
    plain.embedding.load_state_dict(model.embedding.state_dict())
    plain.counted["slow"].load_state_dict(model.counted["slow"].state_dict())
    for of_block, wanted in zip(found, unroll(plain, tokens, start[:, : D + S]), strict=True):
        torch.testing.assert_close(of_block[..., : D + S], wanted, rtol=0, atol=1e-12)
    one = SingleStream(model).step(start[0], int(tokens[0, 0]))
    torch.testing.assert_close(one, found[-1][0, 0].detach(), rtol=0, atol=1e-12)


def test_training_does_not_change_them_and_the_control_has_the_same():
    model = delay_model()
    assert not any("counted" in name for name, _ in model.named_parameters())
    assert torch.equal(model.untrained().counted["delay"].weight, model.counted["delay"].weight)
    # Before they are counted they are as large as what is learned.
    fresh = LanguageModel(ModelConfig(delay_dims=64), V)
    contexts = unroll(fresh, torch.randint(V, (8, 40)), fresh.start(8))[-1][:, 10:, -64:]
    assert 0.5 < contexts.std().item() < 2


def test_counted_ones_tell_tokens_apart_as_well_as_so_few_numbers_can():
    model = LanguageModel(ModelConfig(context_dim=64, delay_dims=24, delay_tokens=4), 40)
    tokens = np.random.default_rng(0).zipf(1.5, 30_000).clip(1, 40).astype(np.uint16) - 1
    count_dims(model, tokens, progress=Silent())
    line = model.counted["delay"]
    x_TE = model.embed(torch.from_numpy(tokens.astype(np.int64))).detach()
    read_TF = x_TE @ line.weight.T + line.bias
    # The first tokens of every stream and the end of the text are left out.
    assert read_TF.mean(0).abs().max() < 0.01
    torch.testing.assert_close(torch.cov(read_TF.T), torch.eye(6), rtol=0, atol=0.02)
    # No six directions hold more of the variance of embeddings.
    kept = torch.linalg.svdvals((x_TE - x_TE.mean(0)).double())[:6].square().sum()
    basis_EF, _ = torch.linalg.qr(line.weight.double().T)
    held = ((x_TE - x_TE.mean(0)).double() @ basis_EF).square().sum()
    assert held == pytest.approx(kept.item(), rel=5e-3)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"delay_dims": 256}, "less than model.context_dim .256."),
        ({"slow_dims": 200, "delay_dims": 56}, "are 200 and 56: together"),
        ({"delay_dims": 100}, "multiple of model.delay_tokens .8."),
        ({"delay_dims": 144, "delay_tokens": 2, "embed_dim": 64}, "72 of a token, and model.embed"),
    ],
)
def test_more_than_there_can_be_are_refused(shape, words):
    with pytest.raises(ConfigError, match=words):
        LanguageModel(ModelConfig(**shape), V)
