"""Published headline figures beside the same algorithm run here, its control and our default.

    python -m benchmarks.published_headlines --data wt [--seeds 3] [--dims 16] [--out DIR]

`published` is what was reported. `rerun` is `newllm phase1` with the published algorithm, every
reading from zero, CVFP objective. In 16 dimensions that is the distribution regularizer of weight
0.2, one step per pass; it was stopped in the second pass, where a reading repeated itself. In 768
the regularizer has weight 0.99, and no gradient where it had none. `control` is the model of the
rerun, untrained. `default` is the preset with our defaults, on as many tokens for 768 dimensions.
Mean ± half the range over seeds; ER/D of train / validation, other rows validation.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.phase1_recipes import report, show

Report = dict[str, Any]

PUBLISHED = ["--start", "zero", "--objective", "cvfp"]
HEAVY = [*PUBLISHED, "--dist-reg-weight", "0.99", "--init-std", "0.1"]
# Nothing is trained, so nothing changes after the second iteration.
VARIANCE = [
    *["--reg", "ema-variance", "--max-iterations", "2", "--set", "regularizer.gradient=detached"],
    *["--set", "regularizer.form=mean", "--set", "regularizer.epsilon=1e-6"],
]
# ER/D needs contexts, at 768 dimensions 4,096 of them; the rest is kept short.
LOOK = [
    *["--set", "analysis.probe_tokens=4096", "--set", "analysis.probe_passages=16"],
    *["--set", "analysis.dynamics_passages=4", "--set", "analysis.dynamics_steps=64"],
    *["--set", "phase1.convergence_tokens=2048"],
]
SMALL = ["--config", "preset:cvfp-16"]
LARGE = ["--config", "preset:cvfp-768", "--max-tokens", "5000"]


def distribution(tokens: int, passes: int) -> list[str]:
    """One optimizer step for each pass over all tokens, which are read one after the other."""
    return [
        *[*SMALL, *PUBLISHED, "--reg", "distribution", "--dist-reg-weight", "0.2"],
        *["--engine", "streams", "--num-streams", "1", "--chunk-steps", str(tokens)],
        *["--max-tokens", str(tokens), "--max-iterations", str(passes)],
    ]


RUNS = {
    "16 distribution": distribution(8192, passes=2),
    "16 distribution, ten passes": distribution(8192, passes=10),
    "16 distribution, 92,047 tokens": [*distribution(92_047, passes=2), "--init-std", "0.05"],
    "16 default": [*SMALL, "--max-tokens", "65536"],
    "768 variance EMA": [*LARGE, *HEAVY, *VARIANCE],
    "768 covariance EMA": [*LARGE, *HEAVY, "--reg", "covariance-ema"],
    "768 past contexts": [*LARGE, *HEAVY, "--reg", "past-contexts"],
    "768 fixed dimensions": [*LARGE, *HEAVY, "--reg", "fixed-dimensions"],
    "768 default": LARGE,
}


def both_ranks(reports: Sequence[Report]) -> str:
    """ER/D on training and on validation text."""
    return " / ".join(
        show([r[split]["effective_rank_ratio"] for r in reports])
        for split in ("train", "validation")
    )


def of_validation(figure: Callable[[Report], float]) -> Callable[[Sequence[Report]], str]:
    """A cell of one figure."""
    return lambda reports: show([figure(r["validation"]) for r in reports])


def of_second_iteration(figure: Callable[[Report], float | None]) -> Callable[..., str]:
    """A cell of what was measured in the first iteration that compares two readings."""

    def cell(reports: Sequence[Report]) -> str:
        found = [r["convergence"]["history"] for r in reports if "convergence" in r]
        return show([figure(history[1]) for history in found])

    return cell


step_cosine = of_validation(lambda split: split["identity_cosine"]["mean"])
token_cosine = of_validation(lambda split: split["token_dependency"]["mean_cosine"])
exponent = of_validation(lambda split: split["lyapunov_exponent"]["mean"])
cvfp_loss = of_second_iteration(lambda entry: entry["sweep_terms"].get("cvfp"))
converged = of_second_iteration(lambda entry: entry["converged_ratio"]["validation"])

# What, dimensions, algorithm, published figure, cell.
ROWS: list[tuple[str, str, str, str, Callable[[Sequence[Report]], str]]] = [
    ("ER/D", "16", "distribution", "0.521 / 0.471", both_ranks),
    ("ER/D", "16", "distribution, ten passes", "-", both_ranks),
    ("CVFP loss, iteration 2", "16", "distribution", "0.000000", cvfp_loss),
    ("converged, iteration 2", "16", "distribution", "1.000", converged),
    ("step cosine", "16", "distribution, 92,047 tokens", "0.974", step_cosine),
    ("token cosine", "16", "distribution, 92,047 tokens", "0.999", token_cosine),
    ("ER/D", "768", "variance EMA", "0.893 / 0.794", both_ranks),
    ("ER/D", "768", "covariance EMA", "0.543", both_ranks),
    ("ER/D", "768", "past contexts", "0.80 to 0.90", both_ranks),
    ("ER/D", "768", "fixed dimensions", "0.803", both_ranks),
    ("λ", "768", "variance EMA", "-", exponent),
]


def main() -> None:
    """Run what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/headlines"))
    parser.add_argument("--dims", default="", help="16 or 768: only these rows")
    arguments = parser.parse_args()
    print("| figure | dims | algorithm | published | rerun | control | default |")
    print("|---|---|---|---|---|---|---|")
    made: dict[str, list[Report]] = {}
    for what, dims, algorithm, published, cell in ROWS:
        if arguments.dims not in ("", dims):
            continue
        for name in (f"{dims} {algorithm}", f"{dims} default"):
            if name not in made:
                made[name] = [
                    report(arguments.out, arguments.data, [*RUNS[name], *LOOK, "--seed", str(seed)])
                    for seed in range(arguments.seeds)
                ]
        rerun = made[f"{dims} {algorithm}"]
        cells = [rerun, [r["random_control"] for r in rerun], made[f"{dims} default"]]
        shown = " | ".join(map(cell, cells))
        print(f"| {what} | {dims} | {algorithm} | {published} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
