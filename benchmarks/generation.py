"""Time and memory per generated token, beside a transformer with a cache and a GRU.

    python -m benchmarks.generation

All models have the parameters of the `tiny` preset with 8,192 tokens, within 5 %, at random values:
speed does not depend on them. A token is: read the one before, make logits, choose. Everybody
chooses with the same code and the default options; one stream, no gradients. Every round goes
through all rows, and medians over all tokens are shown. Memory is the peak of a process of its own.
Exit code 1 if a token at 100,000 takes 10 % longer than one at 100, or one at 1,000 takes longer
than the transformer's.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cached_transformer import NUM_HEADS, NUM_LAYERS, CachedTransformer
from benchmarks.comparison.sizing import solve_width
from benchmarks.peers.base import count_parameters
from newllm_core.config import GenerationConfig, ModelConfig, RunConfig
from newllm_core.generation.sampling import choose
from newllm_core.generation.session import Session
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import prepare_device

VOCAB = 8192
TOKENS_A_ROUND = 32
OPTIONS = GenerationConfig()
FLOAT_BYTES = 4
TOKEN = 17


class Contestant(Protocol):
    """A model somewhere in a text."""

    num_parameters: int
    state_bytes: int

    def rewind(self) -> None:
        """Go back to where it began."""

    def token(self) -> int:
        """Generate one."""


class Newllm:
    """This project's model, with the class that `newllm generate` uses."""

    def __init__(self, config: ModelConfig, position: int) -> None:
        model = LanguageModel(config, VOCAB)
        self.num_parameters = count_parameters(model)
        self.state_bytes = FLOAT_BYTES * model.context_dim
        self._session = Session(model, OPTIONS)
        self._session.read(repeat(TOKEN, position))
        self._place = self._session.context_C
        self.rewind()

    def rewind(self) -> None:
        """Go back to where it began."""
        self._session.go_on_from(self._place, TOKEN, TOKEN)
        self._tokens = self._session.choose(sys.maxsize)

    def token(self) -> int:
        """Generate one."""
        return next(self._tokens)


class Peer:
    """A model with `step`, `logits` and a state."""

    def __init__(self, model: "CachedTransformer | Gru", position: int) -> None:
        self.num_parameters = count_parameters(model)
        self._model = model
        self._random = torch.Generator().manual_seed(0)
        for token in repeat(TOKEN, position):
            model.step(token)
        self.state_bytes = FLOAT_BYTES * model.state_floats()
        self._place = model.place
        self.rewind()

    def rewind(self) -> None:
        """Go back to where it began."""
        self._model.place = self._place
        self._last = TOKEN

    def token(self) -> int:
        """Generate one."""
        logits_V = self._model.logits(self._model.step(self._last)).numpy()
        self._last = choose(logits_V, OPTIONS, self._random)
        return self._last


class Gru(nn.Module):
    """torch's GRU with tied embeddings; its place in a text is its state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.rnn = nn.GRU(width, width)
        self.place: Tensor = torch.zeros(1, width)

    @torch.inference_mode()
    def step(self, token: int) -> Tensor:
        """Read a token; what the head reads [W]."""
        output, self.place = self.rnn(self.embedding.weight[token][None], self.place)
        return output[0]

    @torch.inference_mode()
    def logits(self, x_W: Tensor) -> Tensor:
        """Next-token logits [V]."""
        return torch.mv(self.embedding.weight, x_W)

    def state_floats(self) -> int:
        """Numbers that must be kept to go on."""
        return self.place.numel()


def fitting(make: Callable[[int], nn.Module], step: int) -> int:
    """The width that gives a model about as many parameters as the `tiny` preset."""
    wanted = count_parameters(LanguageModel(ModelConfig(), VOCAB))
    return solve_width(
        lambda width: count_parameters(make(width)), wanted, what="a model", steps=(step,)
    )


def tied(width: int) -> ModelConfig:
    """Ours with one matrix for embeddings and head, as the peers have."""
    return ModelConfig(context_dim=width, embed_dim=width, tie_weights=True)


def newllm(position: int) -> Contestant:
    """The `tiny` preset."""
    return Newllm(ModelConfig(), position)


def newllm_tied(position: int) -> Contestant:
    """The same with tied embeddings, wider."""
    return Newllm(tied(fitting(lambda width: LanguageModel(tied(width), VOCAB), 8)), position)


def transformer(position: int) -> Contestant:
    """With room for the tokens of a round behind its context."""
    room = position + TOKENS_A_ROUND + 1
    width = fitting(lambda width: CachedTransformer(VOCAB, width, 1), 2 * NUM_HEADS)
    return Peer(CachedTransformer(VOCAB, width, room), position)


def gru(position: int) -> Contestant:
    """Its position makes no difference."""
    return Peer(Gru(fitting(Gru, 8)), position)


MAKERS = {"newllm": newllm, "newllm, tied": newllm_tied, "transformer": transformer, "GRU": gru}
ROWS = (
    *(("newllm", position) for position in (100, 1_000, 10_000, 100_000)),
    ("newllm, tied", 1_000),
    ("transformer", 100),
    ("transformer", 1_000),
    ("GRU", 1_000),
)


def measure(contestants: list[Contestant], rounds: int) -> list[float]:
    """Median seconds per token of each, all in turn."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        for contestant, taken in zip(contestants, seconds, strict=True):
            contestant.rewind()
            for _ in range(TOKENS_A_ROUND):
                began = time.perf_counter()
                contestant.token()
                if number:  # the first round warms up
                    taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def peak_memory(name: str, position: int, threads: int) -> float:
    """Peak MB of a process that reads so many tokens and generates a round."""
    command = [sys.executable, "-m", "benchmarks.generation", "--peak", name, str(position)]
    done = subprocess.run(
        [*command, "--threads", str(threads)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def print_peak(name: str, position: int) -> None:
    """What `peak_memory` starts."""
    contestant = MAKERS[name](position)
    for _ in range(TOKENS_A_ROUND):
        contestant.token()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help=f"of {TOKENS_A_ROUND} tokens")
    parser.add_argument("--threads", type=int, default=1, help="of every model")
    parser.add_argument("--peak", nargs=2, metavar=("ROW", "POSITION"), help="used by itself")
    asked = parser.parse_args()
    prepare_device(RunConfig(threads=asked.threads, device="cpu"))
    if asked.peak:
        print_peak(asked.peak[0], int(asked.peak[1]))
        return 0
    # First: a process begins with the peak of the one that starts it.
    peaks = {row: peak_memory(*row, asked.threads) for row in ROWS}
    contestants = [MAKERS[name](position) for name, position in ROWS]
    medians = dict(zip(ROWS, measure(contestants, asked.rounds), strict=True))
    table = Table(title=f"one token, {asked.threads} thread(s), median", title_justify="left")
    for heading in ("model", "position", "parameters", "µs", "tokens/s", "state, KB", "peak, MB"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row, contestant in zip(ROWS, contestants, strict=True):
        table.add_row(
            row[0],
            f"{row[1]:,}",
            f"{contestant.num_parameters:,}",
            f"{1e6 * medians[row]:,.0f}",
            f"{1 / medians[row]:,.0f}",
            f"{contestant.state_bytes / 1024:,.0f}",
            f"{peaks[row]:,.0f}",
        )
    Console(width=100).print(table)
    print(f"transformer: {NUM_LAYERS} layers; every model chooses with {OPTIONS}")
    grown = medians["newllm", 100_000] / medians["newllm", 100]
    ratio = medians["transformer", 1_000] / medians["newllm", 1_000]
    print(f"newllm at 100,000 over 100: {grown:.3f}; transformer over newllm at 1,000: {ratio:.2f}")
    return int(grown > 1.1 or ratio <= 1)


if __name__ == "__main__":
    sys.exit(main())
