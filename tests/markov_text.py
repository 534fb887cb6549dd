"""A tiny text that can be predicted better than by counting tokens, and models to do it."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config, ModelConfig
from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.model.language_model import LanguageModel

VOCAB = 12
END = VOCAB - 1


def markov_split(documents, length, *, seed):
    """Documents in which a token mostly decides the next one."""
    random = np.random.default_rng(seed)
    tokens = []
    for _ in range(documents):
        token = int(random.integers(END))
        for _ in range(length - 1):
            tokens.append(token)
            token = (5 * token + 2) % END if random.random() < 0.8 else int(random.integers(END))
        tokens.append(END)
    starts = np.arange(documents + 1) * length
    sizes = np.full(documents, 3 * length)
    ids = np.array(tokens, np.uint16)
    return TokenSplit(ids, starts, sizes, 3 * length * documents, length * documents // 2)


def dataset(*, documents=24, length=50):
    return PreparedDataset(
        path=Path("unused"),
        info=SimpleNamespace(end_id=END),
        tokenizer_json="{}",
        train=markov_split(documents, length, seed=1),
        validation=markov_split(6, length, seed=2),
    )


def unigram_entropy(split):
    shares = np.bincount(split.tokens, minlength=VOCAB) / len(split.tokens)
    return -sum(p * math.log(p) for p in shares if p > 0)


def checkpoint(*, num_heads=1, phase="phase1", options=None, objective=None, **model):
    """A checkpoint; `options` of the cell, `objective` the tensors that were trained with it."""
    config = ModelConfig(**{"context_dim": 16, "embed_dim": 16} | model)
    if options is None:
        options = {"hidden_dim": 24} if config.cell in ("residual", "gated") else {}
    probes = {"train": torch.zeros(1, 4).long(), "validation": torch.zeros(1, 4).long()}
    return Checkpoint(
        model=LanguageModel(config, VOCAB, cell=options, num_heads=num_heads, seed=3),
        config=Config(model=config, cell=options),
        objective=objective or {},
        tokenizer_json="{}",
        phase=phase,
        probes=probes,
        warmup=1,
        history=[{"iteration": 1}],
        provenance={"dataset_hash": "x"},
    )
