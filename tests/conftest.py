"""What all tests share."""

import os
import sys

import hypothesis
import pytest
import torch

from newllm_core.config import RunConfig
from newllm_core.kernels import door
from newllm_core.runtime.device import available_devices
from tests import second_device

# Whatever the machine's habit: hundreds of processes would compile the same files again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Bit-identical results, and small tensors gain nothing from more threads, of commands neither.
torch.set_num_threads(1)
os.environ.setdefault("NEWLLM_RUN_THREADS", "1")
# Figures of commands are a processor's; the fixture `device` has the others.
os.environ.setdefault("NEWLLM_RUN_DEVICE", "cpu")

# A busy machine is no mistake.
hypothesis.settings.register_profile("tests", deadline=None, max_examples=50)
hypothesis.settings.load_profile("tests")

KERNELS_OFF = os.environ.get("NEWLLM_RUN_KERNELS") == "off"
if KERNELS_OFF:  # for tests that resolve no environment as well
    door.FORMS.clear()


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no worker is left alone with one."""
    items.sort(key=lambda item: not ("/robustness/" in item.nodeid or "devices" in item.nodeid))


# Before the first gradient, which makes a thread for every device there is.
SECOND = second_device.register() if second_device.IS_POSSIBLE else None


@pytest.fixture
def second(monkeypatch):
    """The device of `second_device`."""
    if SECOND is None:
        pytest.skip("a second device takes torch 2.10 or later, and no CUDA")
    monkeypatch.setattr(torch, "Generator", second_device.Generator)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # which is CUDA's
    forms = [form._replace(devices=(*form.devices, second_device.NAME)) for form in door.FORMS]
    monkeypatch.setattr(door, "FORMS", forms)  # those that there are on any
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield torch.device(second_device.NAME)
    torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.fixture(params=[*available_devices(), second_device.NAME])
def device(request):
    """Every device that there is here, and the second one in the processor's memory."""
    if request.param == second_device.NAME:
        return request.getfixturevalue("second")
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
def saver(tmp_path):
    """That of a run which will write `run.safetensors`."""
    from newllm_core.training.resume import Output, begin

    with begin(Output(tmp_path / "run.safetensors"), {}, RunConfig()) as saver:
        yield saver


@pytest.fixture
def using_threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
