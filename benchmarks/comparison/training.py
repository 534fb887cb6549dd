"""How peers are trained: the steps, schedule and stopping rule of Phase 2, with the peer's body.

Shapes: B streams, T tokens of a window, E width.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import precision
from benchmarks.comparison.reading import evaluate, read
from benchmarks.peers.base import Peer
from newllm_core.config import Phase2Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.errors import DivergedError
from newllm_core.kernels.door import choose
from newllm_core.runtime.progress import Progress
from newllm_core.training.phase2.steps import Steps
from newllm_core.training.phase2.terms import Terms, plain_cross_entropy
from newllm_core.training.phase2.trainer import STEPS_LOGGED
from newllm_core.trajectory.text import inputs_at


def train_peer(
    peer: Peer,
    dataset: PreparedDataset,
    config: Phase2Config,
    *,
    way: str,
    context: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train as `newllm_core.training.phase2` does: the best epoch counts, by validation loss.

    Args:
        peer: its weights change.
        dataset: prepared.
        config: everything but the size of windows of a peer that carries no state.
        way: of matrix products.
        context: those windows; there are as many tokens in a step as for all others.
        seed: of the dropout, and of where windows begin.
        progress: is told how far it is.

    Returns:
        Figures of the best epoch (`evaluate`), `epochs` and `tokens` that were read, `rates` of
        each epoch in tokens per second, `curve`: [tokens read, training loss in nats].

    Raises:
        DivergedError: a loss or gradient is not finite.
    """
    torch.manual_seed(seed)
    windows = _Windows(dataset, config, None if peer.carries_state else context, seed)
    stepper = Steps(peer, list(peer.parameters()), config, windows.num_steps * config.epochs)
    peer.train()
    best: dict[str, Any] = {"loss": math.inf}
    rates: list[float] = []
    curve: list[tuple[int, float]] = []
    total = 0
    with precision.products(way):
        for epoch in range(1, config.epochs + 1):
            begun, before = time.perf_counter(), total
            with progress.task(
                f"epoch {epoch}/{config.epochs}", windows.num_tokens, "tokens"
            ) as task:
                for number, terms in enumerate(_losses(peer, windows, way, epoch)):
                    stepper.make(terms)
                    total += terms.num_tokens
                    if number % max(1, windows.num_steps // STEPS_LOGGED) == 0:
                        curve.append((total, terms.plain["cross-entropy"]))
                    task.advance(terms.num_tokens, f"{terms.plain['cross-entropy']:.3f}")
            rates.append((total - before) / (time.perf_counter() - begun))
            figures = evaluate(
                peer,
                dataset.validation,
                end_id=int(dataset.info.end_id),
                way=way,
                context=context,
                progress=progress,
            )
            if not math.isfinite(figures["loss"]):
                raise DivergedError("the validation loss is not finite")
            if figures["loss"] < best["loss"]:
                best = figures | {"best_epoch": epoch}
            elif epoch - best["best_epoch"] >= config.patience:
                break
    return best | {"epochs": epoch, "tokens": total, "rates": rates, "curve": curve}


class _Windows:
    """Places in the training text: contiguous streams that are read a window at a time."""

    def __init__(
        self, dataset: PreparedDataset, config: Phase2Config, context: int | None, seed: int
    ) -> None:
        self.tokens = dataset.train.tokens[: config.max_tokens]
        self.end_id = int(dataset.info.end_id)
        self.length = context or config.bptt
        self.moves = context is not None
        self.random = np.random.default_rng(seed)
        streams = max(1, config.num_streams * config.bptt // self.length)
        self.num_streams = max(1, min(streams, len(self.tokens) // self.length))
        self.num_tokens = len(self.tokens) // self.num_streams * self.num_streams
        self.num_steps = -(-self.num_tokens // self.num_streams // self.length)

    def positions(self, epoch: int) -> Iterator[np.ndarray]:
        """Of one window after another [B, T]."""
        # A peer that starts anew in every window sees other beginnings in every epoch.
        skipped = int(self.random.integers(self.length)) if self.moves and epoch > 1 else 0
        of_stream = (len(self.tokens) - skipped) // self.num_streams
        starts_B1 = skipped + np.arange(self.num_streams)[:, None] * of_stream
        for begin in range(0, of_stream, self.length):
            yield starts_B1 + np.arange(begin, min(begin + self.length, of_stream))


def _losses(peer: Peer, windows: _Windows, way: str, epoch: int) -> Iterator[Terms]:
    """One epoch; whoever iterates makes a step with each before asking for the next."""
    state = peer.start(windows.num_streams)
    for positions_BT in windows.positions(epoch):
        inputs_BT = inputs_at(windows.tokens, positions_BT, windows.end_id)
        y_BTE, state = read(peer, inputs_BT, state, way)
        targets_BT = torch.from_numpy(np.asarray(windows.tokens[positions_BT], np.int64))
        targets_N = targets_BT.flatten().to(y_BTE.device)
        y_NE = y_BTE.flatten(0, 1)
        kernels = "off" if way == precision.TORCH else "auto"
        at = {"setting": kernels, "device": y_NE.device, "dtype": y_NE.dtype}
        head_loss = choose("cross-entropy", plain_cross_entropy, **at)
        with precision.of_body(way, y_NE.device):
            loss = head_loss(peer.head, y_NE, targets_N)
        yield Terms(loss, {"cross-entropy": loss.item()}, len(targets_N))
