from itertools import islice

import pytest
import torch

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError, InputError
from newllm_core.generation import choose, generate
from newllm_core.model.language_model import LanguageModel
from newllm_core.trajectory.sequential import unroll

VOCAB = 13
LOGITS = torch.tensor([0.05, 0.5, 0.15, 0.3]).log()


@pytest.fixture
def model():
    config = ModelConfig(context_dim=8, embed_dim=8, hidden_dim=16)
    model = LanguageModel(config, VOCAB, num_heads=2)
    for number, head in enumerate(model.token_output):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.normal_(head.weight, std=0.8, generator=generator)
    return model


def text(model, *, num_tokens=30, **options):
    return list(generate(model, [1, 2, 3], num_tokens=num_tokens, **options))


def test_greedy_is_the_last_heads_argmax_of_the_whole_text(model):
    greedy = text(model, temperature=0, end_id=12, num_tokens=8)
    read = [12, 1, 2, 3]
    for token in greedy:
        contexts = unroll(model, torch.tensor([read]), model.start(1))
        assert token == int(model.token_output[-1](contexts[-1][0, -1]).argmax())
        read.append(token)
    assert greedy == text(model, temperature=0, end_id=12, num_tokens=8, seed=5)


def test_one_choice_is_the_argmax(model):
    greedy = text(model, temperature=0)
    assert text(model, top_k=1) == greedy
    assert text(model, top_p=1e-9) == greedy
    assert text(model, temperature=1e-6) == greedy


def test_a_seed_says_everything(model):
    assert text(model, seed=1) == text(model, seed=1)
    assert text(model, seed=1) != text(model, seed=2)


def shares(**options):
    generator = torch.Generator().manual_seed(0)
    arguments = {"temperature": 1.0, "top_k": None, "top_p": 1.0} | options
    draws = [choose(LOGITS, generator=generator, **arguments) for _ in range(2000)]
    return [draws.count(token) / 2000 for token in range(4)]


def test_draws_follow_the_probabilities():
    assert shares() == pytest.approx([0.05, 0.5, 0.15, 0.3], abs=0.04)
    assert shares(top_k=2) == pytest.approx([0, 0.625, 0, 0.375], abs=0.04)
    assert shares(top_p=0.7) == pytest.approx([0, 0.625, 0, 0.375], abs=0.04)
    assert shares(top_p=0.9) == pytest.approx([0, 0.526, 0.158, 0.316], abs=0.04)
    squares = [p * p / 0.365 for p in (0.05, 0.5, 0.15, 0.3)]
    assert shares(temperature=0.5) == pytest.approx(squares, abs=0.04)


def test_top_k_beyond_the_vocabulary_is_everything():
    assert shares(top_k=99) == shares()


def test_the_end_token_ends_the_text(model):
    free = text(model, temperature=0)
    stop = free[4]
    first = free.index(stop)
    assert text(model, temperature=0, num_tokens=0) == []
    with torch.no_grad():
        model.token_output[-1].bias[12] = 1e4
    assert text(model, end_id=12) == []
    assert text(model, num_tokens=3) == [12, 12, 12]
    assert first <= 4


def test_it_streams_and_leaves_gradients_on(model):
    endless = generate(model, [1], num_tokens=10**12)
    assert len(list(islice(endless, 5))) == 5
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}])
def test_options_that_mean_nothing_are_refused_at_once(model, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        generate(model, [1], num_tokens=1, **options)


def test_prompts_that_cannot_be_read_are_refused(model):
    with pytest.raises(InputError, match="empty"):
        generate(model, [], num_tokens=1)
    with pytest.raises(InputError, match="vocabulary of 13"):
        generate(model, [13], num_tokens=1)
    assert len(list(generate(model, [], num_tokens=2, end_id=12, temperature=0))) <= 2
