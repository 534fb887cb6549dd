"""Training in two processes beside one process with two threads, and what saving a state costs.

    python -m benchmarks.processes [--phase phase1] [--preset tiny] [--engine parallel]
        [--sharding none] [--rounds 3] [--seconds 6]

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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from newllm_core.config import Config

VOCAB_SIZE = 8192
WARM_UP_STEPS = 3


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
    engine = f", {arguments.engine}" if arguments.phase == "phase1" else ""
    print(f"{arguments.phase}, {arguments.preset}{engine}, float32, sharding {arguments.sharding}")
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
    parser.add_argument("--phase", default="phase1", choices=("phase1", "phase2"))
    parser.add_argument("--engine", default="parallel")
    parser.add_argument("--sharding", default="none", choices=("none", "full"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def start(count: int, arguments: argparse.Namespace) -> dict[str, float]:
    """What `count` processes on two cores measure."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    options = [f"--preset={arguments.preset}", f"--engine={arguments.engine}"]
    options += [f"--phase={arguments.phase}", f"--sharding={arguments.sharding}"]
    options.append(f"--seconds={arguments.seconds}")
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "benchmarks.processes", "--worker", *options],
        env=os.environ | {"OMP_NUM_THREADS": str(2 // count)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(arguments: argparse.Namespace) -> None:
    """Tokens per second of all processes together; the first prints them."""
    from newllm_core import settings
    from newllm_core.checkpoint.run_state import save_state
    from newllm_core.parallel import collectives as distributed
    from newllm_core.runtime.device import prepare_device

    config = settings.resolve(
        settings.from_file(f"preset:{arguments.preset}"),
        {
            "phase1": {"engine": arguments.engine},
            "run": {"device": "cpu", "precision": "float32", "sharding": arguments.sharding},
        },
    )
    device = prepare_device(config.run)
    with distributed.process_group(device):
        run = {"phase1": phase1_steps, "phase2": phase2_steps}[arguments.phase](config, device)
        state = next(run)
        for _ in range(WARM_UP_STEPS):
            next(run)
        begun, read, late = time.perf_counter(), 0, False
        while not late:
            read += next(run)
            late = distributed.any_process(time.perf_counter() - begun > arguments.seconds)[0]
        rate = read / (time.perf_counter() - begun)
        made = state()  # by all processes
        if distributed.rank() > 0:
            return
        with tempfile.TemporaryDirectory(prefix="newllm-") as folder:
            path = Path(folder) / "run.state"
            begun = time.perf_counter()
            save_state(made, path, {})
            seconds = time.perf_counter() - begun
            found = {
                "tokens_per_second": rate,
                "save_seconds": seconds,
                "state_bytes": path.stat().st_size,
                "interval": config.run.save_interval_seconds,
            }
        print(json.dumps(found))


def phase1_steps(config: "Config", device: "torch.device") -> Iterator[Any]:
    """How to get the state, then the tokens of one step after another."""
    import torch

    from newllm_core.model.language_model import LanguageModel
    from newllm_core.parallel.sharding import sharded
    from newllm_core.plugins.registry import REGULARIZERS
    from newllm_core.training.phase1.engines import batches
    from newllm_core.training.phase1.loss import Phase1Loss
    from newllm_core.training.phase1.trainer import Phase1Trainer
    from newllm_core.training.phase2.extra_terms import make_objective

    whole = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    objective, _ = make_objective(config.phase1.objective, config, whole)
    regularizers, _ = REGULARIZERS.make(config.phase1.reg, config.regularizer, whole.context_dim)
    ids = token_ids(config.phase1.window_tokens)
    with sharded(whole, config.run, device, through_time=False) as model:
        tokens = {"train": ids, "validation": ids}
        loss = Phase1Loss(model, objective, regularizers, config.phase1).to(device)
        trainer = Phase1Trainer(loss, tokens, config)
        yield trainer.state
        window = trainer.windows.train
        window.previous_TC.normal_(generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(0)
        while True:
            for batch in batches(model, window, config.phase1, generator):
                terms = trainer.loss.of_batch(window, batch)
                norm = trainer.step.backward(terms.total, list(terms.losses.values()))
                trainer.step.apply(norm, config.phase1.learning_rate)
                window.store(batch.positions_N, terms.contexts_NC)
                yield len(batch.positions_N)


def phase2_steps(config: "Config", device: "torch.device") -> Iterator[Any]:
    """How to get the state, then the tokens of one step after another, of fine-tuning."""
    import torch

    from newllm_core.checkpoint.run_state import State, named, optimizer_tensors
    from newllm_core.kernels.door import choose
    from newllm_core.model.language_model import LanguageModel
    from newllm_core.parallel.collectives import full_tensor
    from newllm_core.parallel.sharding import sharded
    from newllm_core.training.phase2.extra_terms import ExtraTerms
    from newllm_core.training.phase2.fine_tuning import FineTuning
    from newllm_core.training.phase2.head_loss import plain_cross_entropy
    from newllm_core.training.phase2.steps import Steps, trained_parameters

    options = config.phase2
    ids = token_ids(options.num_streams * options.bptt * 64)
    whole = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    extra = ExtraTerms(config, whole, {})
    kernels = config.run.kernels
    with sharded(whole, config.run, device, through_time=True) as model:
        like = model.embedding.weight
        head_loss = choose("cross-entropy", plain_cross_entropy, like, setting=kernels)
        parameters = trained_parameters(model, extra, options)
        stepper = Steps(parameters, options, 10**6)

        def state() -> State:
            tensors = {str(number): full_tensor(p.detach()) for number, p in enumerate(parameters)}
            return State(tensors | named("optimizer", optimizer_tensors(stepper.optimizer)), {})

        yield state
        source = FineTuning(
            model, ids, end_id=0, config=options, weights=[1.0], head_loss=head_loss
        )
        while True:
            for terms in source.losses(torch.Generator(device).manual_seed(0)):
                stepper.make(terms)
                yield terms.num_tokens
            source.begin_epoch()


def token_ids(count: int) -> "np.ndarray":
    """Ids in no order."""
    import numpy as np

    return np.arange(count, dtype=np.int64) * 2654435761 % VOCAB_SIZE


if __name__ == "__main__":
    main()
