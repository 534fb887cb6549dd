import pytest
import torch

from newllm_core.analysis.threads import worthwhile_threads
from newllm_core.config import ModelConfig


@pytest.fixture
def two_threads(using_threads):
    using_threads(2)


def test_small_products_are_left_to_one_thread(two_threads):
    with worthwhile_threads(ModelConfig(), num_rows=64):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_large_products_keep_theirs(two_threads):
    large = ModelConfig(context_dim=768, embed_dim=768, hidden_dim=1536)
    with worthwhile_threads(large, num_rows=64):
        assert torch.get_num_threads() == 2


def test_an_error_restores_them(two_threads):
    with pytest.raises(KeyError), worthwhile_threads(ModelConfig(), num_rows=1):
        raise KeyError
    assert torch.get_num_threads() == 2
