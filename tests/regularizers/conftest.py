import pytest
import torch

from .cases import TRAINING_VARIANTS, VARIANTS, label


@pytest.fixture(params=VARIANTS, ids=label)
def variant(request):
    return request.param


@pytest.fixture(params=TRAINING_VARIANTS, ids=label)
def training_variant(request):
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    """On tensors this small, threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
