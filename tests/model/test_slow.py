"""Dimensions of a context that are averages of what was read."""

import numpy as np
import pytest
import torch
from recurrence import D, V, draw, draw_tokens, make_model

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError
from newllm_core.model import counted_dims
from newllm_core.model.counted_dims import count_dims
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent
from newllm_core.trajectory.sequential import unroll
from newllm_core.trajectory.single import SingleStream

S = 4
# Stored in float32, as every number of a model.
DECAY = torch.tensor([0.7, 0.7, 0.4, 0.4]).double()


def slow_model(**shape):
    model = make_model(context_dim=D + S, slow_dims=S, slow_decays=(0.7, 0.4), **shape)
    generator = torch.Generator().manual_seed(5)
    model.counted["slow"].weight.normal_(generator=generator)
    model.counted["slow"].bias.normal_(generator=generator)
    return model


@pytest.mark.parametrize("cell", ["residual", "mogrifier", "gru"])
def test_they_fade_and_the_others_do_not_know_of_them(cell):
    model = slow_model(cell=cell)
    tokens, start = draw_tokens(3, 6), draw(3, D + S)
    found = unroll(model, tokens, start)
    x_BTE = model.embed(tokens)
    read = x_BTE @ model.counted["slow"].weight.T + model.counted["slow"].bias
    for t in range(6):
        faded = sum((1 - DECAY) * DECAY ** (t - u) * read[:, u] for u in range(t + 1))
        wanted = faded + DECAY ** (t + 1) * start[:, D:]
        for of_block in found:
            torch.testing.assert_close(of_block[:, t, D:], wanted, rtol=0, atol=1e-12)
    plain = make_model(cell=cell)
    plain.blocks.load_state_dict(model.blocks.state_dict())
    plain.embedding.load_state_dict(model.embedding.state_dict())
    for of_block, wanted in zip(found, unroll(plain, tokens, start[:, :D]), strict=True):
        torch.testing.assert_close(of_block[..., :D], wanted, rtol=0, atol=1e-12)
    one = SingleStream(model).step(start[0], int(tokens[0, 0]))
    torch.testing.assert_close(one, found[-1][0, 0].detach(), rtol=0, atol=1e-12)


def test_training_does_not_change_them_and_the_control_has_the_same():
    model = slow_model()
    assert not any("slow" in name for name, _ in model.named_parameters())
    assert torch.equal(model.untrained().counted["slow"].weight, model.counted["slow"].weight)
    # Before they are counted they are as large as what is learned.
    fresh = LanguageModel(ModelConfig(slow_dims=64, slow_decays=(0.9,)), V)
    contexts = unroll(fresh, torch.randint(V, (8, 200)), fresh.start(8))[-1][:, 50:, -64:]
    assert 0.5 < contexts.std().item() < 2


def averages(model, tokens):
    """Slow dimensions in the order of the text, one after another."""
    slow = torch.zeros(len(model.counted["slow"].bias))
    found = []
    for x_E in model.embed(torch.from_numpy(tokens.astype(np.int64))):
        slow = model.counted["slow"](slow, x_E)
        found.append(slow)
    return torch.stack(found)[100:]


def topics(length, seed=0):
    """A text that speaks of one of four things for 200 tokens: 8 of its own, and 8 of all."""
    random = np.random.default_rng(seed)
    topic = np.repeat(random.integers(4, size=length // 200 + 1), 200)[:length]
    own = topic * 8 + random.integers(8, size=length)
    return np.where(random.random(length) < 0.5, own, 32 + random.integers(8, size=length))


def test_counted_ones_differ_as_much_as_they_can_and_have_nothing_in_common():
    model = LanguageModel(ModelConfig(context_dim=64, slow_dims=6, slow_decays=(0.95,)), 40)
    tokens = topics(60_000).astype(np.uint16)
    count_dims(model, tokens, progress=Silent())
    found = averages(model, tokens)
    assert found.mean(0).abs().max() < 0.05
    torch.testing.assert_close(torch.cov(found.T), torch.eye(6), rtol=0, atol=0.05)
    # Four topics differ in three directions, and those are by far the largest.
    variance = 1 / model.counted["slow"].weight.norm(dim=1) ** 2
    assert (variance.diff() <= 0).all()
    assert variance[2] > 3 * variance[3]
    # They tell what the text is about, on text that was not counted too.
    other = topics(4000, seed=1)
    told, topic = averages(model, other), torch.from_numpy(other[100:] // 8)
    means = torch.stack([told[topic == k].mean(0) for k in range(4)])
    nearest = torch.cdist(told, means).argmin(1)
    known = topic < 4
    assert (nearest == topic)[known].double().mean() > 0.8


def test_every_decay_has_directions_of_its_own():
    config = ModelConfig(context_dim=64, slow_dims=7, slow_decays=(0.5, 0.95))
    model = LanguageModel(config, 40)
    assert model.counted["slow"].decay.tolist() == pytest.approx([0.5] * 4 + [0.95] * 3)
    assert "as equal as can be" in ModelConfig.__dataclass_fields__["slow_decays"].metadata["help"]
    tokens = topics(20_000).astype(np.uint16)
    count_dims(model, tokens, progress=Silent())
    for decay, part in ((0.5, slice(0, 4)), (0.95, slice(4, 7))):
        config = ModelConfig(context_dim=64, slow_dims=part.stop - part.start, slow_decays=(decay,))
        alone = LanguageModel(config, 40)
        count_dims(alone, tokens, progress=Silent())
        found, wanted = model.counted["slow"], alone.counted["slow"]
        torch.testing.assert_close(found.weight[part], wanted.weight)
        torch.testing.assert_close(found.bias[part], wanted.bias)


def test_the_same_is_counted_in_any_number_of_threads_and_of_what_was_asked():
    tokens = topics(5000).astype(np.uint16)

    def count(tokens, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model = LanguageModel(ModelConfig(slow_dims=8), 40)
        count_dims(model, tokens, progress=Silent())
        torch.set_num_threads(before)
        return model.counted["slow"].weight

    assert torch.equal(count(tokens, 1), count(tokens, 2))
    assert not torch.equal(count(tokens, 1), count(tokens[:2500], 1))


def test_no_more_than_a_limit_is_read(monkeypatch):
    tokens = topics(5000).astype(np.uint16)
    models = [LanguageModel(ModelConfig(slow_dims=3, slow_decays=(0.9,)), 40) for _ in range(2)]
    count_dims(models[0], tokens[:2000], progress=Silent())
    monkeypatch.setattr(counted_dims, "MOST_TOKENS", 2000)
    count_dims(models[1], tokens, progress=Silent())
    assert torch.equal(models[0].counted["slow"].weight, models[1].counted["slow"].weight)


@pytest.mark.parametrize("tokens", [np.zeros(500, np.uint16), np.zeros(1, np.uint16)])
def test_a_text_without_differences_has_no_slow_dimensions(tokens):
    model = LanguageModel(ModelConfig(slow_dims=8), 40)
    count_dims(model, tokens, progress=Silent())
    assert model.counted["slow"].weight.abs().max() == 0
    assert model.counted["slow"].bias.abs().max() == 0


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"slow_decays": ()}, "model.slow_decays is empty"),
        ({"slow_decays": (1.0,)}, "model.slow_decays"),
        ({"slow_dims": 256}, "less than model.context_dim .256."),
        ({"slow_dims": 100, "embed_dim": 64}, "100 of a token, and model.embed_dim .64."),
    ],
)
def test_more_than_there_can_be_are_refused(shape, words):
    with pytest.raises(ConfigError, match=words):
        LanguageModel(ModelConfig(**shape), V)
