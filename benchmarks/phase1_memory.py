"""Peak memory of Phase 1 over the length of the text: it must not grow.

    python benchmarks/phase1_memory.py [--preset cvfp-16] [--tokens 1000000 20000000]

Every length is a process of its own, which reads a memory-mapped file of random tokens as training
and validation text, two iterations per window (the first only reads, the second trains).
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from newllm_core import settings
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.precision import products_in
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective

VOCAB_SIZE = 8192
CHUNK = 1_000_000


def main() -> None:
    """Print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cvfp-16")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 20_000_000])
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.file is not None:
        print(peak_of(arguments.preset, arguments.file))
        return
    peaks = []
    for count in arguments.tokens:
        with tempfile.TemporaryDirectory() as folder:
            file = write_tokens(Path(folder) / "tokens", count)
            command = [sys.executable, __file__, "--preset", arguments.preset, "--file", file]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
        print(f"{count:>12,} tokens: peak {peaks[-1] / 2**20:,.0f} MiB")
    print(f"last over first: {peaks[-1] / peaks[0]:.3f}")


def write_tokens(path: Path, count: int) -> Path:
    """A file of `count` random tokens."""
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for begin in range(0, count, CHUNK):
            size = min(CHUNK, count - begin)
            file.write(generator.integers(0, VOCAB_SIZE, size, dtype=np.uint16).tobytes())
    return path


def peak_of(preset: str, file: Path) -> int:
    """Bytes of the largest resident set, pages of the memory-mapped file included."""
    config = settings.resolve(settings.from_file(f"preset:{preset}"))
    config = replace(config, phase1=replace(config.phase1, max_iterations=2, later_iterations=2))
    device = prepare_device(config.run)
    tokens = np.memmap(file, np.uint16, mode="r")
    splits = {"train": tokens, "validation": tokens}
    model = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    objective, _ = make_objective(config.phase1.objective, config, model)
    regularizers, _ = REGULARIZERS.make(config.phase1.reg, config.regularizer, model.context_dim)
    with products_in(model, config.run, device):
        loss = Phase1Loss(model, objective, regularizers, config.phase1).to(device)
        Phase1Trainer(loss, splits, config).run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
