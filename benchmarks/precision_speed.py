"""What reads through time, in float32 and bfloat16: tokens per second, side by side.

    python -m benchmarks.precision_speed [--preset tiny cvfp-256] [--rounds 7]

Phase 1 in both is a matter of `newllm bench`, heads alone of `benchmarks.frozen_heads --precision`.
Precisions alternate step by step in one run; medians are compared. Data are random token ids of a
vocabulary of 8,192, settings the defaults of real runs: what `auto` takes must be the faster one.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from benchmarks.fine_tuning import fine_tuning
from newllm_core import settings
from newllm_core.config import Config
from newllm_core.evaluation.splits import score
from newllm_core.kernels.door import choose
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.precision import products_in
from newllm_core.runtime.progress import Silent
from newllm_core.training.phase2.head_loss import plain_cross_entropy
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
    paths = {p: PATHS[name](models[p], config) for p in runs}
    for _ in range(rounds + 1):
        for precision, path in paths.items():
            with products_in(models[precision], runs[precision], CPU):
                begun = time.perf_counter()
                read = next(path)
                rates[precision].append(read / (time.perf_counter() - begun))
    # The first round allocates and chooses kernels.
    wide, narrow = (statistics.median(rates[p][1:]) for p in PRECISIONS)
    return narrow, wide


def tuning(model: LanguageModel, config: Config) -> Iterator[int]:
    """A step of Phase 2 on all parameters."""
    head_loss = choose(
        "cross-entropy", plain_cross_entropy, model.embedding.weight, setting=config.run.kernels
    )
    steps, losses = fine_tuning(model, config.phase2, head_loss)
    for terms in losses:
        steps.make(terms)
        yield terms.num_tokens


def evaluate(model: LanguageModel, config: Config) -> Iterator[int]:
    """Reading a text and scoring every token."""
    text = TOKENS[:65_536]
    while True:
        with Silent().task("evaluating", None, "tokens") as task:
            scores = score(model, contexts_of_text(model, text, end_id=0), task)
        yield scores.num_tokens


def convergence(model: LanguageModel, config: Config) -> Iterator[int]:
    """A rollout of 64 streams, as convergence and validation are measured."""
    tokens_BT = torch.from_numpy(TOKENS[:16_384]).view(64, -1)
    while True:
        rollout(model, tokens_BT, model.start(64))
        yield tokens_BT.numel()


PATHS = {"fine-tuning": tuning, "evaluate": evaluate, "rollout": convergence}


if __name__ == "__main__":
    main()
