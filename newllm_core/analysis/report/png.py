"""Charts as PNG files, by matplotlib: an extra that only this needs."""

import math
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from newllm_core.analysis.report.chart import Chart
from newllm_core.errors import ConfigError
from newllm_core.files.atomic import write_atomically

INCHES = (6.0, 4.0)
DOTS_PER_INCH = 160
LINE_WIDTH = 1.8  # by which matplotlib multiplies dashes


@cache
def _colours() -> dict[str, str]:
    """Return the colour of each role on the page in light."""
    style = (files("newllm_core.analysis.report") / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", style.partition("@media")[0]))


def require_matplotlib() -> Any:  # noqa: ANN401 - an optional module
    """Return the class of a figure, or raise `ConfigError`: matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "--png needs matplotlib: pip install 'newllm[png]' (--html needs nothing)"
        ) from error
    return Figure


def write_charts(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write a file for every chart into `folder`, named by its key; it may raise `InputError`."""
    figure_class = require_matplotlib()
    paths = []
    for chart in charts:
        figure = figure_class(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        _draw(chart, figure.subplots())
        path = folder / f"{chart.key}.png"
        write_atomically(path, figure.savefig)
        paths.append(path)
    return paths


def _draw(chart: Chart, axes: Any) -> None:  # noqa: ANN401 - matplotlib is optional
    for series in chart.series:
        drawn = [chart.drawable(y) for y in series.y]
        axes.plot(
            series.x,
            [math.nan if y is None else 10**y if chart.log_y else y for y in drawn],
            color=_colours()[series.role],
            linestyle=(0, [part / LINE_WIDTH for part in series.dash]) if series.dash else "-",
            marker="o" if series.markers else None,
            markersize=3.5,
            linewidth=LINE_WIDTH,
            label=series.name,
        )
    low, high = chart.y_range()
    if chart.log_y:
        axes.set_yscale("log")
        margin = 0.04 * (high - low)
        axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))
    elif chart.zero and low == 0:
        axes.set_ylim(bottom=0)
    if chart.counts:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(chart.title, fontsize=12, loc="left")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(axis="y", color="#e3e6eb", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, handlelength=3, reverse=True)
