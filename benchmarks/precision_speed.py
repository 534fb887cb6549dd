"""Every path that `--precision` reaches, in float32 and bfloat16: tokens per second, side by side.

    python benchmarks/precision_speed.py [--preset tiny cvfp-256] [--rounds 7]

Precisions alternate step by step in one run; medians are compared. Data are random token ids of a
vocabulary of 8,192, settings the defaults of real runs: what `auto` takes must be the faster one.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from newllm_core import settings
from newllm_core.config import Config
from newllm_core.evaluation.splits import score
from newllm_core.kernels.door import choose
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.precision import products_in
from newllm_core.runtime.progress import Silent
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.context_store import ContextStore
from newllm_core.training.phase2.extra_terms import ExtraTerms, make_objective
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.training.phase2.frozen import FrozenContexts
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.source import Terms
from newllm_core.training.phase2.steps import Steps, trained_parameters, training_only
from newllm_core.trajectory.sequential import rollout
from newllm_core.trajectory.text import contexts_of_text

VOCAB_SIZE = 8192
PRECISIONS = ("float32", "bfloat16")
TOKENS = np.random.default_rng(0).integers(0, VOCAB_SIZE, 131_072)
CPU = torch.device("cpu")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", nargs="+", default=["cvfp-16", "tiny", "cvfp-256"])
    parser.add_argument("--path", nargs="+", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{'preset':15}{'path':22}{'float32':>12}{'bfloat16':>12}{'ratio':>8}")
    for preset in arguments.preset:
        config = settings.resolve(settings.from_file(f"preset:{preset}"))
        prepare_device(config.run)
        for name in arguments.path:
            narrow, wide = measure(name, config, arguments.rounds)
            print(f"{preset:15}{name:22}{wide:12,.0f}{narrow:12,.0f}{narrow / wide:8.2f}")


def measure(name: str, config: Config, rounds: int) -> tuple[float, float]:
    """Median tokens per second in bfloat16 and float32."""
    runs = {p: replace(config.run, precision=p) for p in PRECISIONS}
    models = {p: LanguageModel(config.model, VOCAB_SIZE, cell=config.cell) for p in PRECISIONS}
    rates: dict[str, list[float]] = {p: [] for p in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        paths = {p: PATHS[name](models[p], config, Path(folder) / p) for p in runs}
        for _ in range(rounds + 1):
            for precision, path in paths.items():
                with products_in(models[precision], runs[precision], CPU):
                    begun = time.perf_counter()
                    read = next(path)
                    rates[precision].append(read / (time.perf_counter() - begun))
    # The first round allocates and chooses kernels.
    wide, narrow = (statistics.median(rates[p][1:]) for p in PRECISIONS)
    return narrow, wide


def phase1(
    model: LanguageModel, config: Config, *, engine: str, objective: str, steps: int
) -> Iterator[int]:
    """A few steps of Phase 1."""
    options = config.objective if objective == config.phase1.objective else {}
    phase = replace(config.phase1, engine=engine, objective=objective)
    config = replace(config, phase1=phase, objective=options)
    trained_for, _ = make_objective(objective, config, model)
    regularizers, _ = REGULARIZERS.make(phase.reg, config.regularizer, model.context_dim)
    tokens = {"train": TOKENS, "validation": TOKENS[:1024]}
    loss = Phase1Loss(model, trained_for, regularizers, phase)
    trainer = Phase1Trainer(loss, tokens, config)
    window = trainer.windows.train
    window.previous_TC.normal_()
    generator = torch.Generator().manual_seed(0)
    reading = itertools.chain.from_iterable(
        batches(model, window, phase, generator) for _ in itertools.count()
    )
    while True:
        read = 0
        for _ in range(steps):
            batch = next(reading)
            terms = trainer.loss.of_batch(window, batch)
            norm = trainer.step.backward(terms.total)
            trainer.step.apply(norm, phase.learning_rate)
            window.store(batch.positions_N, terms.contexts_NC)
            read += len(batch.positions_N)
        yield read


def phase2(model: LanguageModel, config: Config, folder: Path, *, freeze: bool) -> Iterator[int]:
    """A step of Phase 2, heads only or all."""
    phase = replace(config.phase2, freeze_context=freeze)
    weights = [1.0] * model.num_heads
    like = model.embedding.weight
    head_loss = choose("cross-entropy", plain_cross_entropy, like, setting="auto")
    losses: Iterator[Terms]
    generator = torch.Generator().manual_seed(0)
    if freeze:
        shape = (model.num_heads, model.context_dim)
        store = ContextStore(folder, len(TOKENS), shape, model.device)
        store.write(np.arange(len(TOKENS)), torch.zeros(len(TOKENS), *shape))
        frozen = FrozenContexts(
            model,
            TOKENS,
            store=store,
            end_id=0,
            config=phase,
            weights=weights,
            seed=0,
            head_loss=head_loss,
        )
        losses = itertools.chain.from_iterable(frozen.losses(generator) for _ in itertools.count())
    else:
        tuning = FineTuning(
            model, TOKENS, end_id=0, config=phase, weights=weights, head_loss=head_loss
        )
        losses = itertools.chain.from_iterable(tuning.losses(generator) for _ in itertools.count())
    parameters = trained_parameters(model, ExtraTerms(config, model, {}), phase)
    stepper = Steps(parameters, phase, 1_000_000)
    with training_only(model, parameters):
        for terms in losses:
            stepper.make(terms)
            yield terms.num_tokens


def evaluate(model: LanguageModel, config: Config, folder: Path) -> Iterator[int]:
    """Reading a text and scoring every token."""
    text = TOKENS[:65_536]
    while True:
        with Silent().task("evaluating", None, "tokens") as task:
            scores = score(model, contexts_of_text(model, text, end_id=0), task)
        yield scores.num_tokens


def convergence(model: LanguageModel, config: Config, folder: Path) -> Iterator[int]:
    """A rollout of 64 streams, as convergence and validation are measured."""
    tokens_BT = torch.from_numpy(TOKENS[:16_384]).view(64, -1)
    while True:
        rollout(model, tokens_BT, model.start(64))
        yield tokens_BT.numel()


PATHS = {
    "parallel": lambda m, c, f: phase1(
        m, c, engine="parallel", objective="reconstruction", steps=2
    ),
    "parallel cvfp": lambda m, c, f: phase1(m, c, engine="parallel", objective="cvfp", steps=2),
    "streams": lambda m, c, f: phase1(m, c, engine="streams", objective="reconstruction", steps=2),
    "online": lambda m, c, f: phase1(m, c, engine="online", objective="reconstruction", steps=32),
    "fine-tuning": lambda m, c, f: phase2(m, c, f, freeze=False),
    "frozen": lambda m, c, f: phase2(m, c, f, freeze=True),
    "evaluate": evaluate,
    "rollout": convergence,
}


if __name__ == "__main__":
    main()
