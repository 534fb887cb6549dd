"""What one step costs wherever it is made: kernels, products and passes over memory.

    python -m benchmarks.passes [--tflops 600] [--float32-tflops 50] [--terabytes 3]

Counted on this machine, as PyTorch dispatches a step to a GPU under bfloat16 autocast: an operation
that is no matrix product reads what it is given and writes what it returns once. The rate follows
from those two alone if nothing overlaps and nobody waits for the processor to ask for kernels.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.fine_tuning import fine_tuning
from newllm_core import settings
from newllm_core.benchmark import VOCAB_SIZE, Runner
from newllm_core.config import RunConfig
from newllm_core.kernels import cross_entropy
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.precision import products_in

CPU, RUN = torch.device("cpu"), RunConfig(precision="bfloat16")
# Logits that exist at a time are a GPU's, not those of the processor that counts.
AT_ONCE = {"cpu": cross_entropy.LOGITS_AT_ONCE["gpu"]}
PRODUCTS = {"addmm", "bmm", "mm"}
# They move what they return, not all that they are given.
LOOKUPS = {"embedding", "gather", "index", "index_select", "nll_loss_forward"}
WRITES = {"index_put_", "_index_put_impl_", "scatter_"}
PHASE1 = {"tiny": (4096, 32_768), "cvfp-768": (4096, 32_768)}
PHASE2 = {"tiny": (64, 1024), "language-model": (64, 1024)}


class Passes(TorchDispatchMode):
    """Counts kernels, operations of products by what they multiply, and bytes of all others."""

    kernels = 0
    moved = 0

    def __init__(self) -> None:
        super().__init__()
        self.flop: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(
        self,
        function: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        made = function(*args, **(kwargs or {}))
        name = function._schema.name.removeprefix("aten::")
        found, given = _tensors(made), _tensors([*args, *(kwargs or {}).values()])
        storages = {tensor.untyped_storage().data_ptr() for tensor in given}
        is_view = not function._schema.is_mutable and all(
            tensor.untyped_storage().data_ptr() in storages for tensor in found
        )
        if is_view or name.startswith(("empty", "new_empty")):
            return made
        self.kernels += 1
        read = given[:-1] if "out" in (kwargs or {}) else given
        if name in LOOKUPS:
            self.moved += 2 * sum(map(_size, found))
        elif name in WRITES:
            self.moved += 2 * _size(given[-1])
        elif name in PRODUCTS:
            self.flop[read[-1].dtype] += 2 * found[0].numel() * read[-2].shape[-1]
        else:
            changed = zip(function._schema.arguments, args, strict=False)
            written = found or _tensors([value for one, value in changed if one.is_write])
            self.moved += sum(map(_size, read)) + sum(map(_size, written))
        return made


def _tensors(values: Any) -> list[Tensor]:  # noqa: ANN401
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def phase1_step(preset: str, tokens: int) -> Callable[[], object]:
    """Return what makes one step of `parallel` after another."""
    sizes = {"batch_tokens": tokens, "min_batch_tokens": tokens, "window_tokens": 2 * tokens}
    config = settings.resolve(settings.from_file(f"preset:{preset}"), {"phase1": sizes})
    runner = Runner(config, "parallel", "bfloat16", CPU)
    runner.trainer.step.looks = False

    def step() -> None:
        with products_in(runner.model, RUN, CPU):
            next(runner.steps)

    return step


def phase2_step(preset: str, streams: int, length: int) -> Callable[[], object]:
    """Return what makes one step of fine-tuning after another, without bigrams."""
    options = {"num_streams": streams, "bptt": length, "dropout": 0.0, "input_dropout": 0.0}
    layers: dict[str, dict[str, Any]] = {"phase2": options, "model": {"head_bigrams": 0}}
    config = settings.resolve(settings.from_file(f"preset:{preset}"), layers)
    model = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    steps, losses = fine_tuning(model, config.phase2, cross_entropy.cross_entropy)
    steps.change.looks = False

    def step() -> None:
        at_once = patch.dict(cross_entropy.LOGITS_AT_ONCE, AT_ONCE)
        with products_in(model, RUN, CPU), at_once:
            steps.make(next(losses))

    return step


def counted(step: Callable[[], object]) -> dict[str, float]:
    """Count the second step: the first makes the optimizer's state."""
    step()
    with Passes() as passes:
        step()
    flop = {"flop": passes.flop.total(), "float32": passes.flop[torch.float32]}
    return {"kernels": passes.kernels, "moved": passes.moved, **flop}


def rows() -> Iterator[dict[str, Any]]:
    """Yield the counts of every step."""
    for preset, sizes in PHASE1.items():
        for tokens in sizes:
            made = counted(phase1_step(preset, tokens))
            yield {"step": f"phase 1 {preset}", "tokens": tokens, **made}
    for (preset, sizes), length in itertools.product(PHASE2.items(), (16, 1)):
        for streams in sizes:
            made = counted(phase2_step(preset, streams, length))
            case = f"phase 2 {preset}, {streams:,} x {length}"
            yield {"step": case, "tokens": streams * length, **made}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tflops", type=float, default=600, help="of bfloat16 products")
    parser.add_argument("--float32-tflops", type=float, default=50, help="of others")
    parser.add_argument("--terabytes", type=float, default=3, help="a second, of passes")
    asked = parser.parse_args()
    table = Table("step", "tokens", "kernels", "GFLOP", "in float32", "MB", "tokens/s")
    for row in rows():
        narrow = row["flop"] - row["float32"]
        seconds = narrow / asked.tflops + row["float32"] / asked.float32_tflops
        seconds = (seconds + row["moved"] / asked.terabytes) / 1e12
        products = (row["flop"] / 1e9, row["float32"] / 1e9)
        counts = (row["tokens"], row["kernels"], *products, row["moved"] / 1e6)
        rate = row["tokens"] / seconds
        table.add_row(row["step"], *(f"{count:,.0f}" for count in counts), f"{rate / 1e6:.2f} M")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
