"""Checkpoints of a second: every value is away from where it starts."""

import numpy as np
import torch

from newllm_core.checkpoint.format import Checkpoint, save
from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.model.counting import count_bigrams
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent
from newllm_core.settings import resolve
from newllm_core.training.phase2.extra_terms import make_objective

TEXT = "the cat sat on the mat, and the dog sat on the log; é was there.\nThe end?\n" * 4
SHAPES = {
    "residual": {},
    "hidden-units": {"options": {"hidden_dim": 17, "layernorm_mix": 0.9}},
    "learned": {"options": {"residual": "learned", "depth": 3}},
    "coefficient": {"options": {"residual_coefficient": 0.7, "depth": 1}},
    "blocks-tied": {"tie_weights": True, "embed_dim": 13, "layer_structure": [2, 1]},
    "heads": {"num_heads": 3, "layer_structure": [2, 1, 3]},
    "hidden-layer": {"head_hidden": 9},
    "hidden-tied": {"tie_weights": True, "head_hidden": 9, "num_heads": 2},
    "tied-heads": {"tie_weights": True, "num_heads": 2},
    "slow": {"slow_dims": 5, "slow_decays": [0.8, 0.5], "num_heads": 2},
    "delay": {"delay_dims": 4, "delay_tokens": 2},
    "slow-delay": {"slow_dims": 2, "delay_dims": 6, "delay_tokens": 3, "tie_weights": True},
    "token": {"head_reads_token": True, "head_hidden": 9, "num_heads": 2},
    "bigrams": {"head_bigrams": 60, "num_heads": 2},
    "gated": {"cell": "gated"},
    "gated-hidden": {
        "cell": "gated",
        "options": {"hidden_dim": 9, "depth": 3, "layernorm_mix": 0.3},
        "layer_structure": [2],
    },
    "mogrifier": {"cell": "mogrifier", "options": {"rounds": 3}},
    "mogrifier-0": {"cell": "mogrifier", "options": {"rounds": 0}, "layer_structure": [1, 2]},
    "gru": {"cell": "gru"},
    "mingru": {"cell": "mingru"},
    "chat": {"roles": ("system", "user", "assistant")},
}


def make(num_heads=1, options=None, roles=(), phase="phase2", **shape):
    """A checkpoint of model section `shape` and cell `options`, for texts or for chats."""
    tokenizer = train_bpe([TEXT], 300, roles)
    config = resolve(
        {"model": {"context_dim": 12, "embed_dim": 10} | shape, "phase1": {"reg": "none"}},
        {"phase1": {"objective": "reconstruction"}, "cell": options or {}, "run": {"seed": 3}},
    )
    vocab_size = tokenizer.vocab_size
    model = LanguageModel(config.model, vocab_size, cell=config.cell, num_heads=num_heads, seed=3)
    objective, _ = make_objective("reconstruction", config, model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*model.parameters(), *objective.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    if model.bigrams is not None:
        ids = np.array(tokenizer.encode(TEXT), np.uint16)
        count_bigrams(model.bigrams, ids, end_id=tokenizer.end_id, progress=Silent())
    figures = {"loss": 2.5, "perplexity": 12.2, "bits_per_byte": 1.9, "word_perplexity": 99.0}
    source = {"kind": "data source", "name": "text-file", "input": "/home/me/book.txt"}
    record = source | {"distribution": "newllm", "version": "0.1.0", "options": {}}
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json=tokenizer.to_json(),
        phase=phase,
        probes={
            "train": torch.randint(0, vocab_size, (3, 40), generator=generator),
            "validation": torch.randint(0, vocab_size, (2, 31), generator=generator),
        },
        warmup=5,
        objective=objective.state_dict(),
        history=[{"iteration": 1, "sweep_terms": {"cvfp": 0.1234567890123}}, {"iteration": 2}],
        vacuous_terms=["regularizer"],
        gate={"train": {"drift": 0.5, "mean_cosine": None, "num_tokens": 8, "context_dim": 12}},
        results={"train": figures, "validation": figures},
        provenance={"torch": "x", "dataset_path": "data", "plugins": [record]},
    )


def write(checkpoint, folder):
    """Save as `NAME.safetensors` in `folder`; returns the path."""
    path = folder / "model.safetensors"
    save(checkpoint, path, overwrite=True)
    return path
