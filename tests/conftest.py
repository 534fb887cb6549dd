"""What all tests share."""

import os
import sys
import tempfile

import hypothesis
import pytest
import torch

from newllm_core.kernels import door
from newllm_core.plugins.files import used_files
from newllm_core.plugins.registry import Registry
from newllm_core.runtime.device import available_devices

# Bit-identical results, and small tensors gain nothing from more threads.
torch.set_num_threads(1)

# A busy machine is no mistake.
hypothesis.settings.register_profile("tests", deadline=None, max_examples=50)
hypothesis.settings.load_profile("tests")

KERNELS_OFF = os.environ.get("NEWLLM_RUN_KERNELS") == "off"
if KERNELS_OFF:  # for tests that resolve no environment as well
    door.FORMS.clear()


READ = Registry.plugins
KNOWN = {}


def plugins_read_once(self):
    """`Registry.plugins`, whose 15 ms thousands of tests would spend on the same files."""
    if used_files(self.kind) or any(path.startswith(tempfile.gettempdir()) for path in sys.path):
        return READ(self)  # a test has plugins of its own
    if self.of not in KNOWN:
        KNOWN[self.of] = READ(self)
    return {name: list(claimants) for name, claimants in KNOWN[self.of].items()}


Registry.plugins = plugins_read_once


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no worker is left alone with one."""
    items.sort(key=lambda item: "/robustness/" not in item.nodeid)


@pytest.fixture(params=available_devices())
def device(request):
    """Every device that there is here."""
    return torch.device(request.param)


@pytest.fixture
def exact_device(device):
    """Every device that knows float64."""
    if device.type == "mps":
        pytest.skip("no float64")
    return device


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1234)


@pytest.fixture
def using_threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
