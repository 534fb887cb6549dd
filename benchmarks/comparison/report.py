"""The results as a table (Markdown) and as one SVG with both charts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from newllm_core.analysis.report.chart import Chart, Series
from newllm_core.analysis.report.png import COLOURS
from newllm_core.analysis.report.svg import HEIGHT, WIDTH, draw
from newllm_core.files.atomic import write_atomically

Model = Mapping[str, Any]

HEADINGS = ("model", "parameters", "products", "tokens/s", "tuned")
POINTS = 40
# The first steps, from the logarithm of the vocabulary downwards, would flatten the rest.
LEFT_OUT = 0.05
ROLES = "abcdefgh"


def table(models: Sequence[Model], *, tokens: int, seconds: float | None) -> str:
    """Markdown; bits per byte of validation text as mean ± standard deviation over seeds."""
    headings = [*HEADINGS, f"bits per byte, {tokens:,} tokens"]
    if seconds is not None:
        headings.append(f"bits per byte, {seconds:g} s")
    rows = []
    for model in models:
        tuned = ", ".join(f"{name.replace('_', ' ')} {v:g}" for name, v in model["setting"].items())
        row = [
            _named(model),
            _size(model),
            model["way"],
            f"{model['tokens_per_second']:,.0f}",
            tuned,
            spread(model["equal_tokens"]),
        ]
        if seconds is not None:
            read = statistics.mean(figures.get("tokens", 0) for figures in model["equal_time"])
            row.append(f"{spread(model['equal_time'])} ({read:,.0f} tokens)")
        rows.append(row)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(model: Model) -> str:
    """The name, and how much a model sees that carries no state (half of it at least)."""
    context = model["identity"].get("context")
    return f"{model['name']}, window {context}" if context else str(model["name"])


def _size(model: Model) -> str:
    if model["parameters"]:
        return f"{model['parameters']:,}"
    return f"{model['equal_tokens'][0]['ngrams']:,} n-grams"


def spread(rows: Sequence[Model]) -> str:
    """Mean ± standard deviation of the bits per byte of some runs."""
    bits = [figures["bits_per_byte"] for figures in rows]
    known = [value for value in bits if value is not None]
    if len(known) < len(bits):
        return f"{len(bits) - len(known)} of {len(bits)} diverged"
    mean = f"{statistics.mean(known):.4f}"
    return f"{mean} ± {statistics.stdev(known):.4f}" if len(known) > 1 else mean


def charts(models: Sequence[Model], *, bytes_per_token: float) -> list[Chart]:
    """Training loss while it falls, and dots for the validation text at the end; seed 0."""
    return [
        _chart("tokens", "At equal tokens", "training tokens", models, "equal_tokens",
               bytes_per_token),
        _chart("seconds", "At equal time", "seconds of training, at the measured speed", models,
               "equal_time", bytes_per_token),
    ]  # fmt: skip


def _chart(
    key: str, title: str, label: str, models: Sequence[Model], rows: str, bytes_per_token: float
) -> Chart:
    series = []
    for model, role in zip(models, ROLES, strict=False):
        if not model[rows] or model[rows][0]["bits_per_byte"] is None:
            continue
        run = model[rows][0]
        per_unit, before = 1.0, 0.0
        if key == "seconds":
            per_unit, before = model["tokens_per_second"], run.get("seconds_before", 0.0)
        points = _binned(run["curve"])
        x = [before + tokens / per_unit for tokens, _ in points]
        y = [nats / math.log(2) / bytes_per_token for _, nats in points]
        series.append(Series(model["name"], x, y, role))
        last = before + run["tokens"] / per_unit
        series.append(Series("", [last], [run["bits_per_byte"]], role, markers=True))
    return Chart(
        key=key,
        title=title,
        caption="",
        x_label=label,
        y_label="bits per byte",
        series=series,
        zero=False,
    )


def _binned(curve: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Means of neighbours, without the beginning."""
    kept = [point for point in curve if point[0] > LEFT_OUT * curve[-1][0]]
    size = -(-len(kept) // POINTS) or 1
    bins = [kept[begin : begin + size] for begin in range(0, len(kept), size)]
    return [
        (statistics.mean(x for x, _ in part), statistics.mean(y for _, y in part)) for part in bins
    ]


def write_svg(drawn: Sequence[Chart], path: Path) -> None:
    """One self-contained picture: charts side by side, names below."""
    shown = [chart for chart in drawn if not chart.empty]
    top, bottom = 24, 30
    names = {series.name: series.role for chart in shown for series in chart.series if series.name}
    style = [
        "text{font:12px sans-serif;fill:#5a6270}.title{font-size:14px;fill:#16181d}",
        ".axes line{stroke:#e3e6eb}.axes line.base{stroke:#5a6270}.cross{display:none}",
        ".curve{fill:none;stroke-width:2;stroke-linejoin:round}.dot{stroke:#fff}",
        *(f".curve.{role}{{stroke:{COLOURS[role]}}}" for role in names.values()),
        *(f".dot.{role}{{fill:{COLOURS[role]}}}" for role in names.values()),
    ]
    width, height = WIDTH * max(1, len(shown)), HEIGHT + top + bottom
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<style>{''.join(style)}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, chart in enumerate(shown):
        x = number * WIDTH
        parts.append(f'<text class="title" x="{x + 54}" y="17">{escape(chart.title)}</text>')
        picture = draw(chart).partition("<script")[0]
        place = f'<svg x="{x}" y="{top}" width="{WIDTH}" height="{HEIGHT}" '
        parts.append(picture.replace("<svg ", place, 1))
    for number, (name, role) in enumerate(names.items()):
        x, y = 54 + number * (width - 60) // len(names), HEIGHT + top + bottom // 2
        parts.append(f'<path class="curve {role}" d="M{x} {y}h18"/>')
        parts.append(f'<text x="{x + 23}" y="{y + 4}">{escape(name)}</text>')
    parts.append("</svg>\n")
    write_atomically(path, lambda file: file.write_text("".join(parts), encoding="utf-8"))
