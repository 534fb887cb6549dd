"""The results as a table (Markdown)."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.comparison.tuning import shown

HEADINGS = (
    "model",
    "parameters",
    "products",
    "tuned",
    "tokens",
    "validation",
    "test",
)


def table(models: Sequence[Mapping[str, Any]]) -> str:
    """Write bits per byte of the reported runs, mean ± standard deviation over seeds."""
    rows = [
        [
            model["name"],
            f"{model['parameters']:,}" if "parameters" in model else _counted(model["rows"]),
            model["way"],
            shown(model["setting"]),
            f"{model['rows'][0].get('tokens', 0):,}",
            spread([row["validation"] for row in model["rows"]]),
            f"**{spread([row['test'] for row in model['rows']])}**",
        ]
        for model in models
    ]
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{rows[0]['ngrams']:,} n-grams"


def spread(bits: Sequence[float | None]) -> str:
    """Write mean ± standard deviation of the bits per byte of some runs."""
    known = [value for value in bits if value is not None]
    if len(known) < len(bits):
        return f"{len(bits) - len(known)} of {len(bits)} diverged"
    mean = f"{statistics.mean(known):.4f}"
    return f"{mean} ± {statistics.stdev(known):.4f}" if len(known) > 1 else mean
