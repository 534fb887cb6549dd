"""The same numbers as on a processor, and runs that move from one to the other."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.timing import Place, Row, row
from benchmarks.gpu.training import preset
from newllm_core.checkpoint.run_state import load_state, save_state
from newllm_core.config import Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.training.pass_meter import PassMeter
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.training.phase2.steps import Steps

VOCAB_SIZE = 997
STEPS = 50
CLOSE = 1e-3
CPU = torch.device("cpu")


def text(length: int) -> np.ndarray:
    """Draw tokens of which few are frequent."""
    return np.minimum(np.random.default_rng(0).zipf(1.3, length), VOCAB_SIZE) - 1


def trainer_on(device: torch.device, config: Config) -> Phase1Trainer:
    """Make a run of Phase 1 that was read once."""
    model = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    objective, _ = make_objective(config.phase1.objective, config, model)
    dims = config.model.context_dim
    regularizers, _ = REGULARIZERS.make(config.phase1.reg, config.regularizer, dims)
    loss = Phase1Loss(model, objective, regularizers, config.phase1).to(device)
    tokens = dict.fromkeys(("train", "validation"), text(config.phase1.window_tokens))
    trainer = Phase1Trainer(loss, tokens, config)
    trainer.windows.train.finish_reading()
    trainer.iteration = 2
    return trainer


def phase1_losses(trainer: Phase1Trainer, count: int) -> list[float]:
    """Make steps from where the trainer is; the losses of each."""
    window, meter, losses = trainer.windows.train, trainer.meter, []
    drawn = torch.Generator().manual_seed(1)
    found = batches(trainer.model, window, trainer.config, drawn, skip=meter.batches)
    for batch, _ in zip(found, range(count), strict=False):
        trainer.make_step(window, batch, [], meter, trainer.config.learning_rate)
        trainer.statistics = trainer._statistics()
        meter.read()
        losses.append(sum(v for name, v in meter.last.items() if name in meter.sums))
    return losses


def phase2_losses(device: torch.device, config: Config, count: int) -> list[float]:
    """Make steps of fine-tuning: the losses of each."""
    model = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell).to(device)
    options = replace(config.phase2, dropout=0.0)
    tokens = text(options.num_streams * options.bptt * count)
    source = FineTuning(model, tokens, end_id=0, config=options, weights=[1.0])
    steps, meter, losses = Steps(list(model.parameters()), options, count), PassMeter(), []
    for terms in source.losses(torch.Generator(device)):
        steps.make(terms)
        meter.count(terms.plain, terms.num_tokens)
        meter.read()
        losses.append(meter.last["cross-entropy"])
    return losses


def sameness(place: Place) -> Iterator[Row]:
    """Compare losses of float32 steps with those of a processor; move a run there and go on."""
    steps, batch = place.size(STEPS, 4), place.size(384, 16)
    sizes = {"batch_tokens": batch, "min_batch_tokens": batch, "window_tokens": steps * batch}
    config = preset("tiny", place, phase1=sizes, run={"precision": "float32"})
    ours, others = (phase1_losses(trainer_on(d, config), steps) for d in (place.device, CPU))
    yield row(f"phase 1, {len(ours)} steps, largest difference", apart(ours, others), "loss", CLOSE)
    ours, others = (phase2_losses(device, config, steps) for device in (place.device, CPU))
    yield row(f"phase 2, {len(ours)} steps, largest difference", apart(ours, others), "loss", CLOSE)

    stays, moved = trainer_on(place.device, config), trainer_on(CPU, config)
    phase1_losses(stays, steps // 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.resume"
        save_state(stays.state(), path, {})
        moved.load_state(load_state(path, {}))
    ours, others = (phase1_losses(trainer, steps // 2) for trainer in (stays, moved))
    label = f"moved to a processor, {len(ours)} more steps, largest difference"
    yield row(label, apart(ours, others), "loss", CLOSE)


def apart(ours: list[float], others: list[float]) -> float:
    """Return the largest difference."""
    return max(abs(a - b) for a, b in zip(ours, others, strict=True))
