import resource

import numpy as np
import pytest
import torch

from newllm_core.errors import InputError
from newllm_core.training.phase2.context_store import ContextStore


def test_a_disk_that_fills_up_is_said(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = torch.ones(500, 1, 16)
    with ContextStore(tmp_path, len(rows), (1, 16), torch.device("cpu")) as store:
        store.write(np.arange(500), rows)
        assert (store.read(0, 500) == rows).all()
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(InputError, match=r"cannot keep contexts in .*free some space"):
                store.write(np.arange(500), rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
