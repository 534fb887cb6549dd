"""Every fast form beside its plain twin, and what it gains in a whole step of fine-tuning.

    python -m benchmarks.kernels [--rounds 7] [--threads 1 2] [--json]

Form and twin take turns in one run; medians are shown, and their ratio: above 1 the form is faster.
Products round their inputs to bfloat16 where training would by default.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.fine_tuning import fine_tuning
from newllm_core import settings
from newllm_core.config import RunConfig
from newllm_core.kernels.door import FORMS, choose
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.precision import products_in, uses_bfloat16
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy

CPU, RUN, VOCAB_SIZE = torch.device("cpu"), RunConfig(), 8192
Passes = Iterator[dict[str, float]]


def head_pass(rows: int, dims: int, vocab: int, loss: HeadLoss) -> Passes:
    """Seconds of one loss of a head after another, forward and backward."""
    head = torch.nn.Linear(dims, vocab)
    contexts_NC = torch.randn(rows, dims, requires_grad=True)
    targets_N = torch.randint(vocab, (rows,))
    while True:
        head.weight.grad = head.bias.grad = contexts_NC.grad = None
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_bfloat16(RUN, CPU)):
            value, _ = loss(head.weight, head.bias, contexts_NC, targets_N)
        middle = time.perf_counter()
        value.backward()
        end = time.perf_counter()
        yield {"forward": middle - begun, "backward": end - middle, "both": end - begun}


def step_pass(preset: str, loss: HeadLoss) -> Passes:
    """Seconds of one step of fine-tuning after another."""
    config = settings.resolve(settings.from_file(f"preset:{preset}"))
    model = LanguageModel(config.model, VOCAB_SIZE, cell=config.cell)
    steps, losses = fine_tuning(model, config.phase2, loss)
    while True:
        begun = time.perf_counter()
        with products_in(model, RUN, CPU):
            steps.make(next(losses))
        yield {"step": time.perf_counter() - begun}


# Operation to its plain twin, and what is timed: each case makes passes of a form or twin.
CASES: dict[str, tuple[HeadLoss, dict[str, Callable[[HeadLoss], Passes]]]] = {
    "cross-entropy": (
        plain_cross_entropy,
        {
            "tiny, 1,024 tokens": partial(head_pass, 1024, 256, VOCAB_SIZE),
            "tiny, 2,048 tokens": partial(head_pass, 2048, 256, VOCAB_SIZE),
            "language-model": partial(head_pass, 1024, 200, VOCAB_SIZE),
            "vocabulary of GPT-2": partial(head_pass, 512, 768, 50_257),
            "a step of tiny": partial(step_pass, "tiny"),
            "a step of language-model": partial(step_pass, "language-model"),
        },
    )
}


def compare(form: Passes, plain: Passes, rounds: int) -> list[dict[str, Any]]:
    """Time a form and its twin in turn: a row for each part. The first two rounds warm up."""
    found = [(next(form), next(plain)) for _ in range(rounds + 2)][2:]
    rows = []
    for part in found[0][0]:
        form_s, plain_s = (float(np.median([f[way][part] for f in found])) for way in (0, 1))
        rows.append({"part": part, "form": form_s, "plain": plain_s, "ratio": plain_s / form_s})
    return rows


def main() -> None:
    """Print one table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    for form, threads in itertools.product(FORMS, asked.threads):
        prepare_device(replace(RUN, threads=threads))
        plain, cases = CASES[form.operation]
        like = torch.empty(0, dtype=form.dtypes[0])
        fast = choose(form.operation, plain, like, setting="auto")
        for case, make in cases.items():
            about = {"operation": form.operation, "threads": threads, "case": case}
            rows += [about | row for row in compare(make(fast), make(plain), asked.rounds)]
    if asked.json:
        print(json.dumps({"schema": 1, "rows": rows}, indent=1))
        return
    table = Table("operation", "threads", "case", "part", "form, ms", "plain, ms", "ratio")
    for row in rows:
        times = (f"{1e3 * row[name]:.1f}" for name in ("form", "plain"))
        named = (str(row[name]) for name in ("operation", "threads", "case", "part"))
        table.add_row(*named, *times, f"{row['ratio']:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
