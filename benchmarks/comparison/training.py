"""How peers are trained: the steps, schedule and stopping rule of Phase 2, with the peer's body.

Shapes: B streams, T tokens of a window, E width.
"""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import precision
from benchmarks.comparison.reading import bits_per_byte, read
from benchmarks.peers.base import Peer
from newllm_core.config import Phase2Config
from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.errors import DivergedError
from newllm_core.kernels.door import choose
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.training.phase2.candidates import among_candidates
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy
from newllm_core.training.phase2.source import Terms
from newllm_core.training.phase2.steps import Steps
from newllm_core.training.phase2.streams import Streams
from newllm_core.trajectory.text import inputs_at


def train_peer(
    peer: Peer,
    dataset: PreparedDataset,
    config: Phase2Config,
    *,
    validation: TokenSplit | None,
    way: str,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train as `newllm_core.training.phase2` does; the weights of the best epoch are kept.

    Args:
        peer: its weights change.
        dataset: whose training text is read.
        config: of Phase 2.
        validation: chooses the epoch; None: the last one is kept.
        way: of matrix products.
        seed: of the dropout.
        progress: is told how far it is.

    Returns:
        `validation` bits per byte and `best_epoch`; `epochs` and `tokens` that were read; `rates`
        of each epoch, in tokens per second of `clock`.

    Raises:
        DivergedError: a loss or gradient is not finite.
    """
    torch.manual_seed(seed)
    progress = progress or Silent()
    tokens, end_id = dataset.train.tokens[: config.max_tokens], int(dataset.info.end_id)
    streams = Streams(len(tokens), config)
    steps = Steps(list(peer.parameters()), config, streams.num_steps * config.epochs)
    generator = torch.Generator(peer.embedding.weight.device).manual_seed(seed)
    peer.train()
    best: dict[str, Any] = {"validation": math.inf, "best_epoch": 0}
    kept: dict[str, torch.Tensor] = {}
    rates: list[float] = []
    total = 0
    device = peer.embedding.weight.device
    with precision.products(way):
        for epoch in range(1, config.epochs + 1):
            begun, before = clock(device), total
            label = f"epoch {epoch}/{config.epochs}"
            with progress.task(label, streams.num_tokens, "tokens") as task:
                windows = _windows(tokens, end_id, streams.windows(epoch - 1))
                for terms in _losses(peer, streams.count, windows, way, steps, generator):
                    steps.make(terms)
                    total += terms.num_tokens
                    task.advance(terms.num_tokens, f"{terms.plain['cross-entropy']:.3f}")
            if steps.change.failed:
                raise DivergedError("a loss or gradient is not finite")
            rates.append((total - before) / (clock(device) - begun))
            if validation is None:
                continue
            reached = bits_per_byte(
                peer,
                validation,
                end_id=end_id,
                way=way,
                context=config.bptt,
                progress=progress,
            )
            if not math.isfinite(reached):
                raise DivergedError("the validation loss is not finite")
            if reached < best["validation"]:
                best = {"validation": reached, "best_epoch": epoch}
                if config.epochs > 1:
                    kept = {name: value.clone() for name, value in peer.state_dict().items()}
            elif epoch - best["best_epoch"] >= config.patience:
                break
    if kept:
        peer.load_state_dict(kept)
    return best | {"epochs": epoch, "tokens": total, "rates": rates}


def clock(device: torch.device) -> float:
    """Read seconds: of the processor, so that other programs do not count, or of the wall."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _windows(
    tokens: np.ndarray, end_id: int, windows: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """What is read at the places of each window [B, T], and what follows there."""
    for positions_BT in windows:
        targets_BT = torch.from_numpy(np.asarray(tokens[positions_BT], np.int64))
        yield inputs_at(tokens, positions_BT, end_id), targets_BT


def _losses(
    peer: Peer,
    num_streams: int,
    windows: Iterable[tuple[np.ndarray, torch.Tensor]],
    way: str,
    steps: Steps,
    generator: torch.Generator,
) -> Iterator[Terms]:
    """One epoch; whoever iterates makes a step with each before asking for the next."""
    state = peer.start(num_streams)
    for inputs_BT, targets_BT in windows:
        y_BTE, state = read(peer, inputs_BT, state, way)
        targets_N = targets_BT.flatten().to(y_BTE.device)
        last_N = torch.from_numpy(inputs_BT).flatten().to(y_BTE.device)
        y_NE = y_BTE.flatten(0, 1)
        kernels = "off" if way == precision.TORCH else "auto"
        head_loss: HeadLoss = choose("cross-entropy", plain_cross_entropy, y_NE, setting=kernels)
        vocab_size = peer.head.out_features
        head_loss = among_candidates(head_loss, targets_N, vocab_size, steps.candidates, generator)
        with precision.of_body(way, y_NE.device):
            loss = peer.nats(head_loss, y_NE, last_N, targets_N, counted=True)
        yield Terms(loss, {"cross-entropy": loss.detach()}, len(targets_N))
