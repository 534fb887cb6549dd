"""The part of a context that is counted and never learned: slow averages and a delay line."""

import numpy as np
import pytest
import torch
from recurrence import D, V, draw, draw_tokens, make_model, session_at

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError
from newllm_core.model import count_memory
from newllm_core.model.language_model import LanguageModel
from newllm_core.model.memory import memory_groups
from newllm_core.runtime.progress import Silent
from newllm_core.trajectory.sequential import unroll

# Four slow dimensions; three tokens, two numbers of each.
S, F, K = 4, 2, 3
DECAYS = (0.75, 0.5)
DECAY = torch.tensor([0.75, 0.75, 0.5, 0.5]).double()
SHAPE = {"slow_dims": S, "slow_decays": DECAYS, "delay_dims": F * K, "delay_tokens": K}


def count(tokens, dtype=torch.float32, **shape):
    """A model of 40 types of token whose memory is counted in `tokens`."""
    model = LanguageModel(ModelConfig(**{"context_dim": 64} | shape), 40).to(dtype)
    count_memory.count_memory(model, tokens, progress=Silent())
    return model


def memories(model, tokens):
    """States of the memory in the order of the text, one after another, without the first 100."""
    state, found = torch.zeros(len(model.memory.bias)), []
    for x_E in model.embed(torch.from_numpy(tokens.astype(np.int64))).detach():
        state = model.memory(state, x_E)
        found.append(state)
    return torch.stack(found)[100:]


def topics(length, seed=0):
    """A text that speaks of one of four things for 200 tokens: 8 of its own, and 8 of all."""
    random = np.random.default_rng(seed)
    topic = np.repeat(random.integers(4, size=length // 200 + 1), 200)[:length]
    own = topic * 8 + random.integers(8, size=length)
    chosen = np.where(random.random(length) < 0.5, own, 32 + random.integers(8, size=length))
    return chosen.astype(np.uint16)


@pytest.mark.parametrize("cell", ["residual", "mogrifier", "gru"])
def test_averages_fade_tokens_move_on_and_the_update_does_not_know_of_them(cell):
    model = make_model(cell=cell, context_dim=D + S + F * K, **SHAPE)
    tokens, start = draw_tokens(4, 7), draw(4, D + S + F * K)
    found = unroll(model, tokens, start)
    read_BTM = model.embed(tokens) @ model.memory.read.T
    # Newest first; before the text what the start state held, moved on.
    held_BTF = torch.cat([start[:, D + S :].view(4, K, F).flip(1), read_BTM[..., S : S + F]], 1)
    for t in range(7):
        faded = sum(DECAY ** (t - u) * read_BTM[:, u, :S] for u in range(t + 1))
        wanted = faded + DECAY ** (t + 1) * start[:, D : D + S]
        wanted = torch.cat([wanted, held_BTF[:, t + 1 : t + 1 + K].flip(1).flatten(1)], 1)
        for of_block in found:
            torch.testing.assert_close(of_block[:, t, D:], wanted, rtol=0, atol=1e-12)
    plain = make_model(cell=cell)
    plain.blocks.load_state_dict(model.blocks.state_dict())
    plain.embedding.load_state_dict(model.embedding.state_dict())
    for of_block, wanted in zip(found, unroll(plain, tokens, start[:, :D]), strict=True):
        torch.testing.assert_close(of_block[..., :D], wanted, rtol=0, atol=1e-12)
    session = session_at(model, start[0])
    session.read([int(tokens[0, 0])])
    torch.testing.assert_close(session.context_C, found[-1][0, 0].detach(), rtol=0, atol=1e-12)


def test_products_of_bfloat16_do_not_round_what_is_kept():
    model = count(topics(5000), delay_dims=24)
    tokens = torch.randint(40, (8, 40))
    exact = unroll(model, tokens, model.start(8))[-1]
    model.product_dtype = torch.bfloat16
    found = unroll(model, tokens, model.start(8))[-1]
    # Of the last tokens, whose embeddings are rounded once, and of those before just as little.
    assert (found - exact)[..., -24:].std() < 0.01


def test_training_does_not_change_it_and_the_control_has_the_same():
    model = make_model(context_dim=D + S + F * K, **SHAPE)
    assert not any("memory" in name for name, _ in model.named_parameters())
    assert torch.equal(model.untrained().memory.read, model.memory.read)
    # Before it is counted, numbers are as large as what is learned.
    fresh = LanguageModel(ModelConfig(slow_dims=64, slow_decays=(0.9,), delay_dims=64), V)
    contexts = unroll(fresh, torch.randint(V, (8, 200)), fresh.start(8))[-1].detach()
    assert 0.5 < contexts[:, 50:, -128:-64].std() < 2
    assert 0.5 < contexts[:, 50:, -64:].std() < 2


def test_counted_numbers_tell_what_was_asked_and_overlap_less():
    tokens = topics(30_000)
    shape = {"slow_dims": 6, "slow_decays": (0.95, 0.5), "delay_dims": 12, "delay_tokens": 4}
    model = count(tokens, embed_dim=32, **shape)
    found = memories(model, tokens).double().numpy()
    assert np.abs(found.mean(0)).max() < 0.05
    # Averages and a delay line, each of principal directions.
    x_TE = model.embed(torch.from_numpy(tokens.astype(np.int64))).detach().double().numpy()
    wanted = [shifted(x_TE @ principal(x_TE, 3), lag) for lag in range(4)]
    for decay in (0.95, 0.5):
        average_TE = x_TE.copy()
        for t in range(1, len(tokens)):
            average_TE[t] = decay * average_TE[t - 1] + (1 - decay) * x_TE[t]
        wanted.append(average_TE @ principal(average_TE[100:], 3))
    wanted = np.concatenate(wanted, axis=1)[100:]
    given = np.concatenate([found, np.ones((len(found), 1))], axis=1)
    told = given @ np.linalg.lstsq(given, wanted, rcond=None)[0]
    missed = (told - wanted).var(axis=0) / wanted.var(axis=0)
    # Directions are found in streams without their beginnings, so that they are not quite the same.
    assert missed.max() < 0.02
    assert missed[[0, 1, 3, 4, 6, 7, 9, 10]].max() < 1e-4
    # A direction of variance λ has λ / (3 λ / 4 + 1 / 4) in the new coordinates.
    before = np.linalg.eigvalsh(np.corrcoef(wanted.T))
    assert before[0] < 0.05
    assert before[-1] > 2
    after = np.linalg.eigvalsh(np.cov(found.T))
    np.testing.assert_allclose(after, before / (0.75 * before + 0.25), rtol=0.05, atol=0.01)


def test_a_long_delay_line_is_counted_where_it_is_full():
    model = count(topics(5000), delay_dims=48, delay_tokens=24, embed_dim=32)
    found = memories(model, topics(20_000)).double().numpy()
    # Whatever came first was not taken for the text: tokens of all places differ as much.
    variances = np.linalg.eigvalsh(np.cov(found.T))
    assert np.abs(found.mean(0)).max() < 0.2
    assert variances[0] > 0.3
    assert variances[-1] < 1.4


def principal(rows, number):
    """The `number` directions in which rows differ most, in columns."""
    return np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:number].T


def shifted(rows, lag):
    return np.concatenate([np.zeros_like(rows[:lag]), rows[: len(rows) - lag]])


def test_slow_ones_tell_what_a_text_is_about():
    model = count(topics(60_000), slow_dims=6, slow_decays=(0.95,))
    other = topics(4000, seed=1)
    told, topic = memories(model, other), torch.from_numpy(other[100:] // 8).long()
    means = torch.stack([told[topic == k].mean(0) for k in range(4)])
    nearest = torch.cdist(told, means).argmin(1)
    known = topic < 4
    assert (nearest == topic)[known].double().mean() > 0.8


def test_parts_as_equal_as_can_be_have_each_decay():
    config = ModelConfig(slow_dims=7, slow_decays=(0.5, 0.95), delay_dims=6, delay_tokens=3)
    assert memory_groups(config) == [(0.5, slice(0, 4)), (0.95, slice(4, 7)), (0.0, slice(7, 9))]
    assert memory_groups(ModelConfig(slow_dims=1)) == [(0.8, slice(0, 1))]
    assert "as equal as can be" in ModelConfig.__dataclass_fields__["slow_decays"].metadata["help"]


def test_the_same_is_counted_in_any_number_of_threads_and_of_what_was_asked():
    tokens = topics(5000)

    def transition(tokens, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model = count(tokens, slow_dims=8, delay_dims=16)
        torch.set_num_threads(before)
        return model.memory.transition

    assert torch.equal(transition(tokens, 1), transition(tokens, 2))
    assert not torch.equal(transition(tokens, 1), transition(tokens[:2500], 1))


def test_it_is_counted_in_float64_too():
    shape = {"slow_dims": 4, "delay_dims": 8}
    found, exact = (count(topics(5000), t, **shape).memory for t in (torch.float32, torch.float64))
    for name, values in exact.named_buffers():
        assert values.dtype == torch.float64
        torch.testing.assert_close(found.get_buffer(name).double(), values, rtol=0, atol=1e-4)


def test_no_more_than_a_limit_is_read(monkeypatch):
    tokens, shape = topics(5000), {"slow_dims": 3, "slow_decays": (0.9,)}
    wanted = count(tokens[:2000], **shape)
    monkeypatch.setattr(count_memory, "MOST_TOKENS", 2000)
    assert torch.equal(count(tokens, **shape).memory.read, wanted.memory.read)


@pytest.mark.parametrize("tokens", [np.zeros(500, np.uint16), np.zeros(1, np.uint16)])
@pytest.mark.parametrize("shape", [{"slow_dims": 8}, {"delay_dims": 16}])
def test_of_a_text_without_differences_nothing_is_kept(tokens, shape):
    model = count(tokens, **shape)
    assert memories(model, np.zeros(200, np.int64)).abs().max() == 0


def test_two_opposite_tokens_differ_in_one_direction_however_many_are_wanted():
    config = ModelConfig(embed_dim=4, slow_dims=4, delay_dims=16, delay_tokens=4)
    model = LanguageModel(config, 2)
    with torch.no_grad():
        model.embedding.weight[1] = -model.embedding.weight[0]
    tokens = np.tile(np.array([0, 1, 1, 0], np.uint16), 256)
    count_memory.count_memory(model, tokens, progress=Silent())
    assert memories(model, tokens).abs().max() < 10


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"slow_decays": ()}, "model.slow_decays is empty"),
        ({"slow_decays": (1.0,)}, "model.slow_decays"),
        ({"slow_dims": 256}, "less than model.context_dim .256."),
        ({"slow_dims": 100, "embed_dim": 64}, "100 of a token, and model.embed_dim .64."),
        ({"delay_dims": 256}, "less than model.context_dim .256."),
        ({"slow_dims": 200, "delay_dims": 56}, "are 200 and 56: together"),
        ({"delay_dims": 100}, "multiple of model.delay_tokens .8."),
        ({"delay_dims": 144, "delay_tokens": 2, "embed_dim": 64}, "72 of a token, and model.embed"),
    ],
)
def test_more_than_there_can_be_is_refused(shape, words):
    with pytest.raises(ConfigError, match=words):
        LanguageModel(ModelConfig(**shape), V)
