"""What all tests share."""

import os

import pytest
import torch

from newllm_core.kernels import door

# Bit-identical results, and small tensors gain nothing from more threads.
torch.set_num_threads(1)

KERNELS_OFF = os.environ.get("NEWLLM_RUN_KERNELS") == "off"
if KERNELS_OFF:  # for tests that resolve no environment as well
    door.FORMS.clear()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1234)


@pytest.fixture
def using_threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
