"""Checkpoints of every shape, whose every value is away from where it starts."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from newllm_core.checkpoint.format import Checkpoint, load
from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.settings import resolve
from newllm_core.training.phase2.extra_terms import make_objective

V = 23
BIAS = "blocks.0.layers.0.network.to_context.bias"
SHAPES = {
    "plain": {},
    "tied": {"tie_weights": True, "embed_dim": 13},
    "tied-heads": {"tie_weights": True, "embed_dim": 13, "num_heads": 2},
    "heads": {"num_heads": 3, "layer_structure": [2, 1, 3]},
    "objective": {"objective": "reconstruction", "cell": "gated"},
    "linear-decoder": {"objective": "reconstruction", "of_objective": {"decoder": "linear"}},
    "tied-projected": {"tie_weights": True},
    "mogrifier": {"cell": "mogrifier", "options": {"rounds": 3}},
    "gru": {"cell": "gru"},
    "mingru": {"cell": "mingru"},
    "hidden-units": {"options": {"hidden_dim": 17, "layernorm_mix": 0.5}},
    "learned": {"options": {"residual": "learned", "depth": 3}},
    "memory": {"context_dim": 19, "slow_dims": 2, "delay_dims": 4, "delay_tokens": 2},
    "pretrained": {"embeddings": "somewhere.safetensors:wte"},
}


def make(num_heads=1, objective="cvfp", options=None, of_objective=None, **shape):
    """A checkpoint whose every value is away from where it starts.

    Args:
        num_heads: of the model.
        objective: what it was trained for.
        options: of the cell.
        of_objective: options of the objective.
        shape: the section `model`.
    """
    shape = {"context_dim": 13, "embed_dim": 11} | shape
    config = resolve(
        {"model": shape, "phase1": {"reg": "ema-variance", "objective": objective}},
        {"regularizer": {"momentum": 0.5}, "run": {"seed": 3}, "phase2": {"head_weights": "1,2"}},
        {"cell": options or {}, "objective": of_objective or {}},
    )
    model = LanguageModel(config.model, V, cell=config.cell, num_heads=num_heads, seed=3)
    trained, _ = make_objective(objective, config, model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*model.parameters(), *trained.parameters()):
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
        objective=trained.state_dict(),
        history=[{"iteration": 1, "sweep_terms": {"cvfp": 0.1234567890123}}, {"iteration": 2}],
        vacuous_terms=["regularizer"],
        gate={"train": {"drift": 0.5, "mean_cosine": None, "num_tokens": 8, "context_dim": 13}},
        results={"train": {"loss": 1e-17}, "validation": {"loss": None}},
        provenance={"torch": "x", "dataset_path": "data", "plugins": []},
    )


def contents(path):
    """Tensors and metadata of a file."""
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def refused(path):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.exit_code == 3
    return message
