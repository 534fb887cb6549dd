"""Tokens per second of Phase 1, engine by engine, beside the published loop and the machine's peak.

All rows are measured in one run, a round of each in turn, and medians are taken: absolute times of
a shared machine are noise, ratios within a run are not.
"""

import copy
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from newllm_core.config import Config
from newllm_core.errors import ConfigError
from newllm_core.kernels.door import describe
from newllm_core.model.language_model import LanguageModel
from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.make import make_regularizers
from newllm_core.runtime.precision import products_in
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.loss import Phase1Loss, num_regularizers, regularizer_weight
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective

NAIVE = "naive"
# Batches of a round: enough to time, few enough to alternate often; a GPU makes so many times more,
# which hides that it is waited for.
BATCHES_PER_ROUND = {NAIVE: 4, "online": 8, "streams": 2, "parallel": 2}
MORE_ON_GPU = 8
PEAK_ROWS = 2048
PRODUCTS_ON_GPU = 50
VOCAB_SIZE = 8192


def benchmark(
    config: Config,
    *,
    engines: Sequence[str],
    precisions: Sequence[str],
    rounds: int,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure every engine, and "naive", in every precision (the naive loop in float32 only).

    Returns:
        `kernels`: which fast forms are used; `peaks`: GFLOP/s of a matrix product of the model's
        width in each dtype; `rows`: engine, precision, tokens_per_second, ratio_to_naive (None
        without the naive loop) and share_of_peak: 6 x weights x tokens per second over the peak,
        dense layers only.
    """
    rows = [
        (engine, precision)
        for engine in engines
        for precision in precisions
        if engine != NAIVE or precision == "float32"
    ]
    if not rows:
        raise ConfigError("the naive loop is measured in float32 only: add --precision float32")
    runners = {row: Runner(config, *row, device) for row in rows}
    rates: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
    peaks: dict[str, list[float]] = {precision: [] for precision in precisions}
    width = config.model.context_dim + config.model.embed_dim
    with (progress or Silent()).task("benchmark", rounds * len(rows), "rounds") as task:
        for runner in runners.values():
            runner.round()  # first calls allocate and choose kernels
        for _ in range(rounds):
            for precision, found in peaks.items():
                found.append(_peak(width, getattr(torch, precision), device))
            for row, runner in runners.items():
                rates[row].append(runner.round())
                task.advance(1, f"{row[0]} {row[1]} {rates[row][-1]:,.0f} tokens/s")
    peak = {precision: statistics.median(found) for precision, found in peaks.items()}
    rate = {row: statistics.median(found) for row, found in rates.items()}
    naive = rate.get((NAIVE, "float32"))
    weights = next(iter(runners.values())).num_weights
    return {
        "device": str(device),
        "kernels": describe(setting=config.run.kernels, device=device),
        "peaks": peak,
        "rows": [
            {
                "engine": engine,
                "precision": precision,
                "tokens_per_second": rate[engine, precision],
                "ratio_to_naive": rate[engine, precision] / naive if naive else None,
                "share_of_peak": 6 * weights * rate[engine, precision] / (peak[precision] * 1e9),
            }
            for engine, precision in rows
        ],
    }


class Runner:
    """One row: keeps its model, optimizer and place in the text between rounds."""

    def __init__(self, config: Config, engine: str, precision: str, device: torch.device) -> None:
        self.engine = engine
        self.run_config = replace(config.run, precision=precision)
        self.device = device
        self.model = LanguageModel(
            config.model, VOCAB_SIZE, cell=config.cell, seed=config.run.seed
        ).to(device)
        self.num_weights = sum(p.numel() for p in self.model.blocks.parameters() if p.ndim == 2)
        regularizers, *_ = make_regularizers(
            config.phase1.reg,
            config.regularizer,
            config.model.context_dim,
            count=num_regularizers(self.model, config.phase1),
            seed=config.run.seed,
        )
        # The published objective: all rows must compute the same.
        phase1 = replace(config.phase1, start="zero", objective="cvfp")
        self.config = replace(phase1, engine=engine if engine != NAIVE else "online")
        objective, _ = make_objective("cvfp", replace(config, objective={}), self.model)
        self.loss = Phase1Loss(self.model, objective, regularizers, self.config).to(device)
        tokens = torch.arange(self.config.window_tokens).mul(2654435761).remainder(VOCAB_SIZE)
        splits = dict.fromkeys(("train", "validation"), tokens.numpy())
        self.trainer = Phase1Trainer(self.loss, splits, replace(config, phase1=self.config))
        self.window = self.trainer.windows.train
        self.window.previous_TC.normal_()
        self.steps = self._published() if engine == NAIVE else self._engine()

    def round(self) -> float:
        """Return tokens per second of a few batches."""
        count = BATCHES_PER_ROUND[self.engine] * (1 if self.device.type == "cpu" else MORE_ON_GPU)
        begun = time.perf_counter()
        with products_in(self.model, self.run_config, self.device):
            read = sum(itertools.islice(self.steps, count))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return read / (time.perf_counter() - begun)

    def _published(self) -> Iterator[int]:
        """Make the steps of the published loop: batch one, plain Adam, a step per token."""
        config, model = self.config, copy.deepcopy(self.model)
        regularizer = cast(Regularizer, self.loss.regularizers[0])
        weight = regularizer_weight([regularizer], config)
        parameters = list(model.blocks.parameters())
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, foreach=False)
        context = model.start(1)
        for place in range(len(self.window)):
            token_1 = self.window.tokens_T[place : place + 1]
            new = model.read(context=context, token=model.embed(token_1).detach())[-1][-1]
            cvfp = F.mse_loss(new, self.window.previous_TC[place : place + 1])
            loss = (1 - weight) * cvfp + weight * regularizer(new, tokens_N=token_1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            context = new.detach()
            loss.item()
            yield 1

    def _engine(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(0)
        while True:
            for batch in batches(self.model, self.window, self.config, generator):
                terms = self.loss.of_batch(self.window, batch)
                norm = self.trainer.step.backward(terms.total)
                self.trainer.step.apply(norm, self.config.learning_rate)
                self.window.store(batch.positions_N, terms.contexts_NC)
                yield len(batch.positions_N)


def _peak(width: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return GFLOP/s of [2048, width] x [width, width]: the median of a few."""
    count = 1 if device.type == "cpu" else PRODUCTS_ON_GPU  # launching one may take longer than it
    rows = torch.randn(PEAK_ROWS, width, device=device, dtype=dtype)
    weight = torch.randn(width, width, device=device, dtype=dtype)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(count):
            F.linear(rows, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append((time.perf_counter() - begun) / count)
    return 2 * PEAK_ROWS * width * width / statistics.median(seconds) / 1e9
