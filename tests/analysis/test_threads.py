import pytest
import torch

from newllm_core.analysis.recurrence import ModelRecurrence, worthwhile_threads
from newllm_core.config import ModelConfig
from newllm_core.model.language_model import LanguageModel


def model_of(dims):
    config = ModelConfig(context_dim=dims, embed_dim=dims)
    return ModelRecurrence(LanguageModel(config, vocab_size=9))


@pytest.fixture
def two_threads(using_threads):
    using_threads(2)


def test_small_products_are_left_to_one_thread(two_threads):
    with worthwhile_threads(model_of(256), num_rows=64):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_large_products_keep_theirs(two_threads):
    with worthwhile_threads(model_of(768), num_rows=64):
        assert torch.get_num_threads() == 2


def test_an_error_restores_them(two_threads):
    with pytest.raises(KeyError), worthwhile_threads(model_of(256), num_rows=1):
        raise KeyError
    assert torch.get_num_threads() == 2
