"""Runs of Phase 1 on small text."""

import numpy as np
import torch

from newllm_core import settings
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective

V, D = 50, 16
ENGINES = ("parallel", "streams", "online")
PUBLISHED = {"reg": "ema-variance", "engine": "online", "start": "zero"}
DETACHED = {"regularizer": {"gradient": "detached"}}


def markov_text(length, seed=0):
    """Each token allows six others."""
    noise = np.random.default_rng(seed).integers(0, 6, length)
    tokens = np.zeros(length, np.uint16)
    for place in range(1, length):
        tokens[place] = (7 * int(tokens[place - 1]) + int(noise[place])) % V
    return tokens


TEXT = {"train": markov_text(600), "validation": markov_text(150, seed=1)}


def make_config(section=None, **given):
    small = {
        "objective": "cvfp",
        "max_iterations": 5,
        "num_streams": 8,
        "chunk_steps": 8,
        "convergence_tokens": 64,
        "convergence_steps": 16,
        "exact_stream_tokens": 32,
        "min_converged_ratio": 1.0,
    }
    shape = {"model": {"context_dim": D, "embed_dim": D}}
    return settings.resolve(shape, {"phase1": small | given}, section or {})


def make_model(config, seed=0):
    return LanguageModel(config.model, V, cell=config.cell, seed=seed)


def make_regularizers(config, count=1):
    return REGULARIZERS.make(config.phase1.reg, config.regularizer, D, count=count)[0]


def train(section=None, *, text=TEXT, regularizers=None, objective=None, saver=None, **given):
    """A trained model and what trained it."""
    config = make_config(section, **given)
    model = make_model(config)
    if regularizers is None:
        every_layer = config.phase1.apply_to == "every-layer"
        regularizers = make_regularizers(config, len(model.cells()) if every_layer else 1)
    if objective is None:
        objective, _ = make_objective(config.phase1.objective, config, model)
    loss = Phase1Loss(model, objective, regularizers, config.phase1)
    trainer = Phase1Trainer(loss, text, config, saver=saver)
    trainer.run()
    return model, trainer


def short(length):
    return {"train": TEXT["train"][:length], "validation": TEXT["validation"][: length // 2]}


def same(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))
