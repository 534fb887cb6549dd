from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.comparison.contestant import Conditions
from newllm_core.config import RunConfig
from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.runtime.progress import Silent

VOCAB, END = 40, 39


def split(documents, length, *, seed):
    """Documents in which every token but the noise follows from the two before it."""
    random = np.random.default_rng(seed)
    tokens = []
    for _ in range(documents):
        a, b = random.integers(END, size=2)
        for _ in range(length - 1):
            tokens.append(int(a))
            follows = (3 * a + b) % END if random.random() < 0.9 else random.integers(END)
            a, b = b, follows
        tokens.append(END)
    starts = np.arange(documents + 1) * length
    sizes = np.full(documents, 2 * length)
    return TokenSplit(
        np.array(tokens, np.uint16), starts, sizes, int(sizes.sum()), documents * length
    )


@pytest.fixture
def dataset():
    return PreparedDataset(
        path=Path("unused"),
        info=SimpleNamespace(end_id=END, vocab_size=VOCAB, hash="x"),
        tokenizer_json="{}",
        train=split(40, 50, seed=1),
        validation=split(6, 50, seed=2),
        test=split(8, 50, seed=3),
    )


@pytest.fixture
def conditions(dataset):
    return Conditions(
        dataset=dataset,
        run=RunConfig(precision="float32", threads=1),
        parameters=49_000,
        device=torch.device("cpu"),
        progress=Silent(),
    )
