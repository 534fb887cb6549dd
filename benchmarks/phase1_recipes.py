"""Phase 1 with its defaults, several seeds, beside the untrained control: mean and spread.

    python benchmarks/phase1_recipes.py --data wt [--preset tiny] [--seeds 3] [--max-tokens 1000000]

Everything after `--` goes to `newllm phase1`: `-- --reg ema-variance`. Runs that exist in `--out`
are not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FIGURES = {
    "ER/D": lambda split: split["effective_rank_ratio"],
    "exponent": lambda split: split["lyapunov_exponent"]["mean"],
    "step cosine": lambda split: split["identity_cosine"],
    "token cosine": lambda split: split["token_dependency"]["mean_cosine"],
    "tokens remembered": lambda split: split["token_memory"]["total"],
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("phase1", nargs="*", help="options of newllm phase1")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    reports = [report(arguments, seed) for seed in range(arguments.seeds)]
    columns = {
        "train": [r["train"] for r in reports],
        "validation": [r["validation"] for r in reports],
        "control": [r["random_control"]["validation"] for r in reports],
    }
    print(f"{arguments.preset}, {arguments.max_tokens:,} tokens, {arguments.seeds} seed(s)")
    print(f"{'':18}" + "".join(f"{name:>18}" for name in columns))
    for name, figure in FIGURES.items():
        cells = [f"{show(list(map(figure, splits))):>18}" for splits in columns.values()]
        print(f"{name:18}" + "".join(cells))
    seconds = [r["seconds"] for r in reports]
    print(f"seconds of phase 1 {statistics.mean(seconds):.0f}")


def report(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What `newllm analyze` says of one run."""
    words = [arguments.preset, str(arguments.max_tokens), *arguments.phase1, f"seed{seed}"]
    name = "_".join(word.strip("-").replace("/", "-") for word in words)
    kept = arguments.out / f"{name}.json"
    if not kept.exists():
        checkpoint = str(arguments.out / f"{name}.safetensors")
        begun = time.perf_counter()
        newllm(
            *["phase1", "--config", f"preset:{arguments.preset}", "--data", arguments.data],
            *["--max-tokens", str(arguments.max_tokens), "--seed", str(seed)],
            *["--out", checkpoint, "--overwrite", *arguments.phase1],
        )
        seconds = time.perf_counter() - begun
        found = json.loads(newllm("analyze", checkpoint, "--json"))
        kept.write_text(json.dumps(found | {"seconds": seconds}))
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def newllm(*words: str) -> str:
    """Standard output of a command; its progress goes to the terminal."""
    command = [sys.executable, "-m", "newllm_cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def show(values: list[float]) -> str:
    """Mean, and half the range."""
    return f"{statistics.mean(values):.3f} ±{(max(values) - min(values)) / 2:.3f}"


if __name__ == "__main__":
    main()
