"""What bfloat16 costs in quality: the same run in both precisions, ER/D and Phase 2 loss compared.

    python benchmarks/precision_quality.py --data wt [--preset tiny] [--seeds 2]
        [--max-tokens 131072] [--phase2-tokens 300000]

Every run is `newllm phase1` and one epoch of `newllm phase2`, each a process of its own. Runs that
exist in `--out` are not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=131_072)
    parser.add_argument("--phase2-tokens", type=int, default=300_000)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {
        precision: [figures(arguments, precision, seed) for seed in range(arguments.seeds)]
        for precision in PRECISIONS
    }
    print(f"{'':24}{'float32':>10}{'bfloat16':>10}{'change':>9}")
    for name in found["float32"][0]:
        wide, narrow = (statistics.mean(f[name] for f in found[p]) for p in PRECISIONS)
        print(f"{name:24}{wide:10.4f}{narrow:10.4f}{narrow / wide - 1:+9.2%}")


def figures(arguments: argparse.Namespace, precision: str, seed: int) -> dict[str, float]:
    """ER/D of both splits after Phase 1, losses of both after Phase 2."""
    kept = arguments.out / f"{arguments.preset}_{precision}_seed{seed}.json"
    if not kept.exists():
        first, second = (str(kept.with_suffix(f".phase{n}.safetensors")) for n in (1, 2))
        common = [
            *("--data", arguments.data, "--precision", precision, "--seed", str(seed)),
            *("--overwrite", "--json"),
        ]
        preset = ["--config", f"preset:{arguments.preset}"]
        one = newllm(
            "phase1", *preset, *common, "--out", first, "--max-tokens", str(arguments.max_tokens)
        )
        tokens = str(arguments.phase2_tokens)
        two = newllm(
            *("phase2", first, *common, "--out", second),
            *("--epochs", "1", "--max-tokens", tokens),
        )
        kept.write_text(json.dumps({"phase1": one, "phase2": two}))
    report = json.loads(kept.read_text())
    gate, results = report["phase1"]["gate"], report["phase2"]
    splits = ("train", "validation")
    ranks = {f"ER/D, {split}": gate[split]["effective_rank_ratio"] for split in splits}
    return ranks | {f"phase 2 loss, {split}": results[split]["loss"] for split in splits}


def newllm(*words: str) -> dict:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "newllm_cli", *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
