"""Losses, figures and texts of small runs in float64, as they have always been."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from newllm_core import settings
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import GenerationConfig
from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.generation.session import Session
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective
from newllm_core.training.phase2.run import train_phase2
from tests import second_device
from tests.golden.cases import END, V, phase1_cases, phase2_cases, splits

FIGURES = json.loads((Path(__file__).parent / "figures.json").read_text())
SPLITS = splits()


def differences(found, expected, where=""):
    """What is not the same within 1e-9 of its size: where, found, expected.

    A rank is a sum over singular values; LayerNorm makes one of them zero, of which the square root
    of rounding is left.
    """
    tolerance = 1e-6 if "effective_rank" in where else 1e-9
    if isinstance(expected, dict):
        if not set(expected) <= set(found):
            return [(where, set(found), set(expected))]
        pairs = [(f"{where}.{key}", found[key], value) for key, value in expected.items()]
    elif isinstance(expected, list):
        if len(found) != len(expected):
            return [(where, len(found), len(expected))]
        pairs = [
            (f"{where}[{index}]", *pair)
            for index, pair in enumerate(zip(found, expected, strict=True))
        ]
    elif math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-13):
        return []
    else:
        return [(where, found, expected)]
    return [different for place, *pair in pairs for different in differences(*pair, place)]


# What steps read and keep there is tested one by one, so a few whole runs will do.
ON_SECOND = {"windows", "streams-reconstruction", "fine-tuned-gru", "dropout"}


@pytest.fixture
def place(request):
    """Devices that draw the same random numbers."""
    return torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("second")


def on_devices(names):
    """Parametrize a test with cases, and with where they run."""
    pairs = [(name, "cpu") for name in names]
    pairs += [(name, second_device.NAME) for name in names if name in ON_SECOND]
    return pytest.mark.parametrize(("name", "place"), pairs, indirect=["place"])


def make_model(config, place, **options):
    return LanguageModel(config.model, V, cell=config.cell, **options).double().to(place)


@on_devices(FIGURES["phase1"])
def test_phase1(name, place):
    config = settings.resolve(phase1_cases()[name])
    model = make_model(config, place)
    objective, _ = make_objective(config.phase1.objective, config, model)
    every_layer = config.phase1.apply_to == "every-layer"
    regularizers, _ = REGULARIZERS.make(
        config.phase1.reg,
        config.regularizer,
        config.model.context_dim,
        count=len(model.cells()) if every_layer else 1,
    )
    tokens = {split: ids for split, (ids, _) in SPLITS.items()}
    regularizers = [regularizer.to(place) for regularizer in regularizers]
    loss = Phase1Loss(model, objective.double().to(place), regularizers, config.phase1)
    trainer = Phase1Trainer(loss, tokens, config, end_id=END)
    trainer.run()
    assert differences(trainer.history, FIGURES["phase1"][name]) == []


def prepared():
    def split(ids, starts):
        documents = len(starts) - 1
        sizes = np.full(documents, 150)
        return TokenSplit(ids, starts, sizes, 150 * documents, 25 * documents)

    return PreparedDataset(
        path=Path("unused"),
        info=SimpleNamespace(end_id=END),
        tokenizer_json="{}",
        **{name: split(*parts) for name, parts in SPLITS.items()},
    )


@on_devices(FIGURES["phase2"])
def test_phase2_and_text(saver, name, place):
    case, heads = phase2_cases()[name]
    config = settings.resolve(case, {"run": {"check_interval_steps": 1}})
    start = Checkpoint(
        model=make_model(config, place, num_heads=heads, seed=3),
        config=config,
        tokenizer_json="{}",
        phase="phase1" if heads == 1 else "expand",
        probes={split: torch.zeros(1, 4).long() for split in SPLITS},
        warmup=1,
    )
    expected = FIGURES["phase2"][name]
    trained = train_phase2(start, prepared(), config, saver=saver)
    lines = map(json.loads, saver.log.path.read_text().splitlines())
    steps = [line for line in lines if line["event"] == "step"]
    norms_and_losses = [[s["gradient_norm"], s["terms"]["cross-entropy"]] for s in steps]
    assert differences(norms_and_losses, expected["steps"]) == []
    epochs = trained.results["epochs"]
    for entry in epochs:
        for split in SPLITS:
            entry[split]["heads"] = [head["loss"] for head in entry[split]["heads"]]
    assert differences(epochs, expected["epochs"]) == []
    assert differences([entry.get("terms", {}) for entry in epochs], expected["terms"]) == []
    options = GenerationConfig(temperature=0.8, top_p=0.9)
    session = Session(trained.model, options, seed=5, start_id=END)
    assert list(session.choose(30)) == expected["generated"]
