"""Phase 2 on frozen contexts beside the matrix products that its head cannot do without.

    python -m benchmarks.frozen_heads [--dims 256] [--vocabulary 8192] [--precision auto]

A step multiplies contexts and head twice: logits, and the gradient of the head. The rate of those
two products, measured in the same run by turns, is what the whole step (reading contexts, dropout,
loss, gradient, AdamW) is compared with.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from newllm_core.config import Config, ModelConfig, Phase2Config, RunConfig
from newllm_core.kernels.cross_entropy import ROWS_OF_HEAD
from newllm_core.kernels.door import choose
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.precision import products_in
from newllm_core.training.phase2.context_store import ContextStore
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.frozen import FrozenContexts
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.steps import Steps, trained_parameters, training_only

STEPS_PER_ROUND = 8


def main() -> None:
    """Print tokens per second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dims", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    dims, vocabulary = arguments.dims, arguments.vocabulary
    run = RunConfig(precision=arguments.precision)
    device = prepare_device(run)
    found = measure(dims, vocabulary, rounds=arguments.rounds, device=device, run=run)
    print(f"{dims} dimensions, {vocabulary:,} tokens")
    print(f"products of the head {found['products']:10,.0f} tokens/s")
    print(f"whole step           {found['step']:10,.0f} tokens/s, ", end="")
    print(f"{found['step'] / found['products']:.0%}")


def measure(
    dims: int, vocabulary: int, *, rounds: int, device: torch.device, run: RunConfig
) -> dict[str, float]:
    """Return tokens per second of a whole step and of the head's products, as training would."""
    config = Phase2Config(freeze_context=True)
    rows = config.batch_tokens
    shape = ModelConfig(context_dim=dims, embed_dim=dims)
    model = LanguageModel(shape, vocabulary).to(device)
    extra = ExtraTerms(Config(phase2=config), model, {})
    parameters = trained_parameters(model, extra, config)
    like = model.embedding.weight
    head_loss = choose("cross-entropy", plain_cross_entropy, like, setting=run.kernels)
    random = np.random.default_rng(0)
    tokens = random.integers(vocabulary, size=64 * rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        ContextStore(Path(folder), len(tokens), (1, dims), device) as store,
        training_only(model, parameters),
        products_in(model, run, device),
    ):
        contexts = torch.from_numpy(random.standard_normal((len(tokens), 1, dims), np.float32))
        store.write(np.arange(len(tokens)), contexts)
        source = FrozenContexts(
            model,
            tokens,
            store=store,
            end_id=0,
            config=config,
            weights=[1.0],
            seed=0,
            head_loss=head_loss,
        )
        stepper = Steps(parameters, config, 10_000)
        generator = torch.Generator(device)
        losses = itertools.chain.from_iterable(
            source.losses(generator) for _ in itertools.repeat(None)
        )
        dtype = model.product_dtype or torch.float32
        x_NC = contexts[:rows, 0].to(device, dtype)
        weight_VC = model.heads()[0].weight.detach().to(dtype)
        # As many rows as products like, as the step has.
        weight_VC = F.pad(weight_VC, (0, 0, 0, -len(weight_VC) % ROWS_OF_HEAD))

        def step() -> None:
            stepper.make(next(losses))

        def products() -> None:
            logits_NV = x_NC @ weight_VC.T
            _ = logits_NV.T @ x_NC

        rates = {"step": list[float](), "products": list[float]()}
        for _ in range(rounds + 1):
            rates["step"].append(rows / _seconds(step, device))
            rates["products"].append(rows / _seconds(products, device))
    return {name: statistics.median(found[1:]) for name, found in rates.items()}


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    begun = time.perf_counter()
    for _ in range(STEPS_PER_ROUND):
        action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / STEPS_PER_ROUND


if __name__ == "__main__":
    main()
