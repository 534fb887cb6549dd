"""Phase 1 with its defaults, several seeds, beside the untrained control: mean and spread.

    python -m benchmarks.phase1_recipes --data wt [--preset tiny] [--seeds 3] [--max-tokens 1000000]

Everything after `--` goes to `newllm phase1`: `-- --reg ema-variance`. Runs that exist in `--out`
are not repeated.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIGURES = {
    "ER/D": lambda split: split["effective_rank_ratio"],
    "exponent": lambda split: split["lyapunov_exponent"]["mean"],
    "step cosine": lambda split: split["identity_cosine"]["mean"],
    "token cosine": lambda split: split["token_dependency"]["mean_cosine"],
    "tokens remembered": lambda split: split["token_memory"]["total"],
    "converged in time": lambda split: split["sweeps"]["converged"],
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("phase1", nargs="*", help="options of newllm phase1")
    arguments = parser.parse_args()
    options = ["--config", f"preset:{arguments.preset}", *arguments.phase1]
    if arguments.max_tokens is not None:
        options += ["--max-tokens", str(arguments.max_tokens)]
    reports = [
        report(arguments.out, arguments.data, [*options, "--seed", str(seed)])
        for seed in range(arguments.seeds)
    ]
    columns = {
        "train": [r["train"] for r in reports],
        "validation": [r["validation"] for r in reports],
        "control": [r["random_control"]["validation"] for r in reports],
    }
    print(f"{' '.join(options)}, {arguments.seeds} seed(s)")
    print(f"{'':20}" + "".join(f"{name:>18}" for name in columns))
    for name, figure in FIGURES.items():
        cells = [f"{show(list(map(figure, splits))):>18}" for splits in columns.values()]
        print(f"{name:20}" + "".join(cells))
    seconds = [r["seconds"] for r in reports]
    print(f"seconds of phase 1  {show(seconds)}")


def report(out: Path, data: str, options: Sequence[str]) -> dict[str, Any]:
    """What `newllm analyze` says of `newllm phase1 --data DATA *options`; `options`, `seconds`."""
    out.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256("\0".join([data, *options]).encode()).hexdigest()[:12]
    kept = out / f"{name}.json"
    if not kept.exists():
        checkpoint = str(out / f"{name}.safetensors")
        begun = time.perf_counter()
        newllm("phase1", "--data", data, "--out", checkpoint, "--overwrite", *options)
        seconds = time.perf_counter() - begun
        found = json.loads(newllm("analyze", checkpoint, "--json"))
        kept.write_text(json.dumps(found | {"options": options, "seconds": seconds}))
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def newllm(*words: str) -> str:
    """Standard output of a command; its progress goes to the terminal."""
    command = [sys.executable, "-m", "newllm_cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def show(values: Sequence[float | None]) -> str:
    """Mean, and half the range, of those that there are."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    return f"{statistics.mean(there):.3f} ±{(max(there) - min(there)) / 2:.3f}"


if __name__ == "__main__":
    main()
