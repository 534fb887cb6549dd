"""Rates of both phases, beside the card's peak and cuDNN's recurrent networks.

Shapes: B streams, T tokens of a window.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import frozen_heads
from benchmarks.comparison.sizing import solve_width
from benchmarks.fine_tuning import fine_tuning, random_tokens
from benchmarks.gpu.timing import Place, Row, row
from benchmarks.peers.base import Peer, count_parameters
from benchmarks.peers.gru import Gru
from benchmarks.peers.lstm import Lstm
from newllm_core import settings
from newllm_core.benchmark import NAIVE, VOCAB_SIZE, Runner, benchmark
from newllm_core.config import Config, Phase2Config, RunConfig
from newllm_core.kernels.door import choose
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import to_device
from newllm_core.runtime.precision import products_in
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy
from newllm_core.training.phase2.source import Terms
from newllm_core.training.phase2.steps import Steps

GPT2_VOCABULARY = 50_257
# Streams and window of a step: those of the presets, as many as fill a card, and no recurrence.
WINDOWS = {"64 x 16": (64, 16), "1,024 x 16": (1024, 16), "1,024 x 1": (1024, 1)}
# A fast form is worth its lines from so many times the plain one on.
WORTH_ITS_LINES = 1.15
# The largest batch whose contexts are known to stay diverse (docs/EXPERIMENTS.md) has bars.
HEADLINE_BATCH = 8192
PRESETS = ("tiny", "language-model", "language-model-hour")


def preset(name: str, place: Place, **layers: dict[str, Any]) -> Config:
    """Read a preset of this package and change it; small where the figures mean nothing."""
    small = {"context_dim": 16, "embed_dim": 16} if place.quick else {}
    layers["model"] = layers.get("model", {}) | small
    return settings.resolve(settings.from_file(f"preset:{name}"), layers)


def vocabulary(place: Place, size: int = VOCAB_SIZE) -> int:
    """Return how many types there are, as many as in prepared WikiText-2."""
    return place.size(size, 97)


def steps_of(name: str, batch: int, place: Place) -> Config:
    """Return a preset with steps of so many tokens."""
    sizes = {"batch_tokens": batch, "min_batch_tokens": batch, "window_tokens": 4 * batch}
    return preset(name, place, phase1=sizes)


def phase1(place: Place, peak: float) -> Iterator[Row]:
    """Measure Phase 1 in bfloat16 at growing batches, and the published loop, objective `cvfp`."""
    for name in ("tiny", "cvfp-768"):
        naive = rate_of(steps_of(name, 512, place), NAIVE, "float32", place)
        for batch in (512, 4096, HEADLINE_BATCH, 32_768) if not place.quick else (32,):
            config = steps_of(name, batch, place)
            rate = rate_of(config, "parallel", "bfloat16", place)
            memory, flop = memory_and_flop(config, place)
            is_headline = name == "cvfp-768" and batch == HEADLINE_BATCH
            label, bar = f"{name}, {batch:,} tokens a step", 2e6 if is_headline else None
            yield row(label, rate, "tokens/s", bar, memory=memory)
            share = flop * rate / (peak * 1e12)
            yield row("  of the peak", share, "share", 0.3 if is_headline else None)
            yield row("  over the published loop", rate / naive, "x", 5000 if is_headline else None)


def rate_of(config: Config, engine: str, precision: str, place: Place) -> float:
    """Return tokens per second of Phase 1."""
    found = benchmark(
        config,
        engines=(engine,),
        precisions=(precision,),
        rounds=place.size(9, 1),
        device=place.device,
    )
    return float(found["rows"][0]["tokens_per_second"])


def memory_and_flop(config: Config, place: Place) -> tuple[float, float]:
    """Return the peak of memory of bfloat16 steps, in MiB, and what products a token takes."""
    place.begin_memory()
    runner = Runner(config, "parallel", "bfloat16", place.device)
    runner.round()
    memory = place.memory()
    counter = FlopCounterMode(display=False)
    with products_in(runner.model, runner.run_config, place.device), counter:
        tokens = next(runner.steps)
    return memory, counter.get_total_flops() / tokens


def compiled_phase1(place: Place) -> Iterator[Row]:
    """Measure steps with cells that `torch.compile` made one kernel of."""
    for name in ("tiny", "cvfp-768"):
        config = steps_of(name, place.size(HEADLINE_BATCH, 32), place)
        rate = rate_of(config, "parallel", "bfloat16", place)
        runner = Runner(config, "parallel", "bfloat16", place.device)
        runner.model.blocks.compile(dynamic=False)
        begun = time.perf_counter()
        runner.round()
        first_s = time.perf_counter() - begun
        found = statistics.median(runner.round() for _ in range(place.size(9, 1)))
        label = f"phase 1 of {name}, compiled cells"
        yield row(label, found / rate, "x", WORTH_ITS_LINES, first_call_seconds=first_s)


def phase2(place: Place) -> Iterator[Row]:
    """Measure Phase 2 through time beside a GRU and an LSTM of as many parameters."""
    windows = list(WINDOWS.items())[: place.size(len(WINDOWS), 1)]
    for name, (label, (streams, length)) in itertools.product(PRESETS, windows):
        streams, length = place.size(streams, 2), min(length, place.size(16, 3))
        options = {"num_streams": streams, "bptt": length, "dropout": 0.0, "input_dropout": 0.0}
        config = preset(name, place, phase2=options, model={"head_bigrams": 0})
        rates = {}
        for kind in ("newllm", "gru", "lstm"):
            place.begin_memory()
            step = step_of(kind, config, place)
            rates[kind] = streams * length / place.seconds_of(step)
            yield row(f"{name} {label}, {kind}", rates[kind], "tokens/s", memory=place.memory())
            del step
        bar = (3.0 if length == 1 else 1.0) if name == "language-model" else None
        yield row("  newllm over gru", rates["newllm"] / rates["gru"], "x", bar)


def step_of(kind: str, config: Config, place: Place) -> Callable[[], None]:
    """Return what makes one step of fine-tuning after another."""
    device, options = place.device, config.phase2
    vocab_size = vocabulary(place, config.data.vocab_size)
    ours = LanguageModel(config.model, vocab_size, cell=config.cell)
    like, kernels = torch.empty(0, device=device), config.run.kernels
    head_loss = choose("cross-entropy", plain_cross_entropy, like, setting=kernels)
    if kind == "newllm":
        steps, losses = fine_tuning(ours.to(device), options, head_loss)
    else:
        tokens = random_tokens(options, vocab_size)
        # Tensor cores are fast at multiples of 8.
        multiple = place.size(8, 1)
        peer = peer_of(kind, count_parameters(ours), vocab_size, multiple).to(device)
        epochs = (peer_losses(peer, tokens, options, head_loss) for _ in itertools.count())
        losses = itertools.chain.from_iterable(epochs)
        steps = Steps(list(peer.parameters()), options, 1_000_000)

    def step() -> None:
        with products_in(ours, config.run, device):
            steps.make(next(losses))

    return step


def peer_of(kind: str, parameters: int, vocab_size: int, multiple: int) -> Peer:
    """Make a peer of about as many parameters, whose width is a `multiple`."""
    make: Callable[[int], Peer] = partial({"gru": Gru, "lstm": Lstm}[kind], vocab_size, shape="1")

    @cache
    def count(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(make(width))

    return make(solve_width(count, parameters, what=kind, steps=(multiple,)))


def peer_losses(
    peer: Peer, tokens: np.ndarray, config: Phase2Config, head_loss: HeadLoss
) -> Iterator[Terms]:
    """Yield the loss of one window after another, under autocast where there is a GPU.

    Autocast gives cuDNN's networks float16, whatever it was asked for; the head has bfloat16.
    """
    device = peer.embedding.weight.device
    state = peer.start(config.num_streams)
    of_stream = tokens.reshape(config.num_streams, -1)
    for begin in range(0, of_stream.shape[1] - 1, config.bptt):
        window_BT = torch.from_numpy(of_stream[:, begin : begin + config.bptt + 1].copy())
        window_BT = to_device(window_BT, device)
        enabled = device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            y_BTE, state = peer(window_BT[:, :-1], [part.detach() for part in state])
            targets_N = window_BT[:, 1:].flatten()
            y_NE = y_BTE.flatten(0, 1)
            loss, _ = head_loss(peer.head.weight, peer.head.bias, y_NE, targets_N)
        yield Terms(loss, {"cross-entropy": loss.detach()}, len(targets_N))


def frozen(place: Place) -> Iterator[Row]:
    """Measure heads on frozen contexts, with and without fast forms, beside their products."""
    dims = place.size(768, 16)
    for vocab_size in (vocabulary(place), GPT2_VOCABULARY)[: place.size(2, 1)]:
        is_large = vocab_size == GPT2_VOCABULARY
        found = {}
        for kernels in ("auto", "off"):
            place.begin_memory()
            measured = frozen_heads.measure(
                dims,
                vocab_size,
                rounds=place.size(7, 1),
                device=place.device,
                run=RunConfig(kernels=kernels),
            )
            found[kernels] = measured
            label = f"{dims} dimensions, {vocab_size:,} tokens, kernels {kernels}"
            yield row(label, measured["step"], "tokens/s", memory=place.memory())
        share = found["auto"]["step"] / found["auto"]["products"]
        yield row("  of the head's products", share, "share", 0.6 if is_large else None)
        yield row("  over kernels off", found["auto"]["step"] / found["off"]["step"], "x", 1.15)
