"""Checkpoints of every shape, whose every value is away from where it starts."""

import pytest
import torch

from newllm_core.checkpoint.format import (
    Checkpoint,
    load,
)
from newllm_core.checkpoint.metadata import GATE_FIGURES
from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.settings import resolve

V = 23
BIAS = "blocks.0.layers.0.bias"
SHAPES = {
    "plain": {},
    "tied": {"tie_weights": True, "embed_dim": 13},
    "tied-heads": {"tie_weights": True, "embed_dim": 13, "num_heads": 2},
    "heads": {"num_heads": 3, "layer_structure": [2, 1, 3]},
    "decoder": {"reconstruction": True, "update": "gated"},
    "tied-projected": {"tie_weights": True},
    "mogrifier": {"update": "mogrifier", "mogrifier_rounds": 3},
    "two-matrices": {"hidden_dim": 17, "layernorm_mix": 0.5},
    "pretrained": {"embeddings": "somewhere.safetensors:wte"},
}


def make(num_heads=1, reconstruction=False, **shape):
    """A checkpoint whose every value is away from where it starts."""
    shape = {"context_dim": 13, "embed_dim": 11} | shape
    config = resolve(
        {"model": shape, "phase1": {"reg": "ema-variance"}, "phase2": {"head_weights": "1,2"}},
        {"regularizer": {"momentum": 0.5}, "run": {"seed": 3}},
    )
    model = LanguageModel(
        config.model, V, num_heads=num_heads, reconstruction=reconstruction, seed=3
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json='{"model": "ä\\n"}',
        phase="phase2",
        probes={
            "train": torch.randint(0, V, (3, 40), generator=generator),
            "validation": torch.randint(0, V, (2, 31), generator=generator),
        },
        warmup=5,
        history=[{"iteration": 1, "terms": {"cvfp": 0.1234567890123}}, {"iteration": 2}],
        vacuous_terms=["regularizer"],
        gate={"train": dict.fromkeys(GATE_FIGURES, 0.5) | {"num_tokens": 8, "context_dim": 13}},
        results={"train": {"loss": 1e-17}, "validation": {"loss": None}},
        provenance={"torch": "x", "dataset_path": "data", "plugins": []},
    )


def refused(path):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.exit_code == 3
    return message
