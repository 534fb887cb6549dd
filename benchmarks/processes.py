"""Phase 1 in two processes beside one process with two threads, and what saving its state costs.

    python -m benchmarks.processes [--preset tiny] [--engine parallel] [--rounds 3] [--seconds 6]

The two take turns, and medians are printed: absolute rates of a shared machine are noise, ratios
within a run are not. Saving is timed in the one process; its share is that of the default interval.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCAB_SIZE = 8192
WARM_UP_BATCHES = 2


def main() -> None:
    """Start the workers in turn, print the medians and their ratio."""
    arguments = parse()
    if arguments.worker:
        measure(arguments)
        return
    rates: dict[str, list[float]] = {"one": [], "two": []}
    saved: list[float] = []
    for _ in range(arguments.rounds):
        for name, count in (("one", 1), ("two", 2)):
            found = start(count, arguments)
            rates[name].append(found["tokens_per_second"])
            if count == 1:
                saved.append(found["save_seconds"])
                size, interval = found["state_bytes"], found["interval"]
    one, two = (statistics.median(rates[name]) for name in ("one", "two"))
    seconds = statistics.median(saved)
    print(f"{arguments.preset}, {arguments.engine}, float32")
    print(f"one process, two threads: {one:,.0f} tokens/s")
    print(f"two processes:            {two:,.0f} tokens/s, ratio {two / one:.2f}")
    print(
        f"saving {size / 2**20:,.0f} MiB: {seconds:.2f} s, "
        f"{seconds / interval:.2%} of {interval:g} s between saves"
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--engine", default="parallel")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def start(count: int, arguments: argparse.Namespace) -> dict[str, float]:
    """What `count` processes on two cores measure."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    options = [f"--preset={arguments.preset}", f"--engine={arguments.engine}"]
    options.append(f"--seconds={arguments.seconds}")
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "benchmarks.processes", "--worker", *options],
        env=os.environ | {"OMP_NUM_THREADS": str(2 // count), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(arguments: argparse.Namespace) -> None:
    """Tokens per second of all processes together; the first prints them."""
    import torch

    from newllm_core import distributed, settings
    from newllm_core.config import RunConfig
    from newllm_core.device import prepare_device
    from newllm_core.model.language_model import LanguageModel
    from newllm_core.progress import Silent
    from newllm_core.regularizers.build import build_regularizers
    from newllm_core.training.engines import batches
    from newllm_core.training.phase1 import Phase1Trainer
    from newllm_core.training.state import save_state

    config = settings.resolve(
        settings.from_file(f"preset:{arguments.preset}"),
        {"phase1": {"engine": arguments.engine}, "run": {"device": "cpu"}},
    )
    device = prepare_device(config.run)
    with distributed.process_group(device):
        model = LanguageModel(config.model, VOCAB_SIZE)
        regularizers, _ = build_regularizers(config, 1)
        ids = torch.arange(config.phase1.window_tokens).mul(2654435761).remainder(VOCAB_SIZE)
        tokens = {"train": ids.numpy(), "validation": ids.numpy()}
        trainer = Phase1Trainer(model, regularizers, tokens, config, device, Silent())
        window = trainer.train_window
        window.previous_TC.normal_(generator=torch.Generator().manual_seed(0))
        window.readings = 1
        read = 0
        generator = torch.Generator().manual_seed(0)
        for number, batch in enumerate(batches(model, window, config.phase1, generator)):
            if number == WARM_UP_BATCHES:
                begun, read = time.perf_counter(), 0
            terms = trainer.terms(window, batch)
            trainer.step(terms, 0)
            window.store(batch.positions_N, terms.contexts_NC)
            read += len(batch.positions_N)
            late = number > WARM_UP_BATCHES and time.perf_counter() - begun > arguments.seconds
            if any(distributed.any_process(late)):
                break
        rate = read / (time.perf_counter() - begun)
        if distributed.rank() > 0:
            return
        with tempfile.TemporaryDirectory(prefix="newllm-") as folder:
            path = Path(folder) / "run.state"
            begun = time.perf_counter()
            save_state(trainer.state(), path, {})
            seconds = time.perf_counter() - begun
            found = {
                "tokens_per_second": rate,
                "save_seconds": seconds,
                "state_bytes": path.stat().st_size,
                "interval": RunConfig().save_interval_seconds,
            }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
