"""What a regularizer adds to a step of Phase 1, in percent of a step without one.

    python benchmarks/regularizer_cost.py [--preset cvfp-768] [--rounds 7]

Steps of all regularizers alternate in one run; medians are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from newllm_core import settings
from newllm_core.config import Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.precision import products_in
from newllm_core.training.phase1.engines import Batch
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.windows import Window
from newllm_core.training.phase2.extra_terms import make_objective

VOCAB_SIZE = 8192


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cvfp-768")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    config = settings.resolve(settings.from_file(f"preset:{arguments.preset}"))
    device = prepare_device(config.run)
    names = ["none", *(n for n in REGULARIZERS.plugins() if n != "none")]
    count, dims = config.phase1.batch_tokens, config.model.context_dim
    window = Window(torch.randint(0, VOCAB_SIZE, (count,)), torch.zeros(dims), "zero")
    window.previous_TC.normal_()
    batch = Batch(torch.arange(count), torch.randn(count, dims), [count])
    steps = {name: stepper(name, config, device) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            step(window, batch)
            seconds[name].append(time.perf_counter() - begun)
    without = statistics.median(seconds["none"][1:])
    print(
        f"{arguments.preset}, {count:,} tokens a step: {without * 1e3:.0f} ms without regularizer"
    )
    for name in names[1:]:
        print(f"{name:20} {statistics.median(seconds[name][1:]) / without - 1:+.1%}")


def stepper(name: str, config: Config, device: torch.device) -> Callable[[Window, Batch], None]:
    """A function that makes one step; the loss is CVFP and the regularizer."""
    phase1 = replace(config.phase1, reg=name, objective="cvfp", dist_reg_weight=0.5)
    config = replace(config, objective={})
    model = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    objective, _ = make_objective("cvfp", config, model)
    regularizers, _ = REGULARIZERS.make(name, {}, model.context_dim)
    loss = Phase1Loss(model, objective, regularizers, phase1)
    parameters = list(model.blocks.parameters())
    optimizer = torch.optim.Adam(parameters, fused=True)

    def step(window: Window, batch: Batch) -> None:
        with products_in(model, config.run, device):
            optimizer.zero_grad(set_to_none=True)
            loss.of_batch(window, batch).total.backward()
            optimizer.step()

    return step


if __name__ == "__main__":
    main()
