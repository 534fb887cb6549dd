"""Nothing asks the hub, and code of exported folders is cached where tests end."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported
# Figures are compared with a processor's.
os.environ.setdefault("NEWLLM_RUN_DEVICE", "cpu")

import cases
import pytest
import torch
from newllm_hub.export import export_folder

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def modules_cache(tmp_path_factory):
    """Where Transformers copies the code of model folders to, and imports it from."""
    import transformers.dynamic_module_utils as modules

    folder = str(tmp_path_factory.mktemp("modules"))
    before, modules.HF_MODULES_CACHE = modules.HF_MODULES_CACHE, folder
    yield folder
    modules.HF_MODULES_CACHE = before
    sys.path[:] = [path for path in sys.path if path != folder]


@pytest.fixture(scope="session", params=cases.SHAPES)
def exported(request, tmp_path_factory):
    """A checkpoint of every shape, its path, and the folder exported from it."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = cases.make(**cases.SHAPES[request.param])
    path = cases.write(checkpoint, folder)
    export_folder(path, folder / "model", analysis=False)
    return checkpoint, path, folder / "model"


@pytest.fixture(scope="session")
def chat(tmp_path_factory) -> Path:
    """The path of one checkpoint that knows roles."""
    return cases.write(cases.make(**cases.SHAPES["chat"]), tmp_path_factory.mktemp("chat"))
