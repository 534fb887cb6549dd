"""A chart as data, and as inline SVG, whose colours come from the style of the page."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Small enough that text stays readable when a phone scales it down.
WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 24, 42
Values = Sequence[float | None]
LEAST_POWERS = 2.0
# Lengths of strokes and gaps: of what is beside the curves, or another kind of them, and of curves
# in the order of their roles, a to h, which thus differ without colours too.
DASHED = (5, 3)
DASHES = ((), (12, 4), (2, 5), (12, 4, 2, 4), (5, 9), (2, 10), (12, 4, 2, 4, 2, 4), (12, 4, 5, 4))


@dataclass(frozen=True)
class Series:
    """One curve; None leaves a gap in it.

    The `role` decides its colour: train, validation, control, reference, or a to h. A curve without
    a `dash` is solid. With `markers` every point is shown.
    """

    name: str
    x: Sequence[float]
    y: Values
    role: str
    dash: tuple[int, ...] = ()
    markers: bool = False

    @property
    def known(self) -> list[float]:
        """Return how high its points are, without the gaps."""
        return [y for y in self.y if y is not None]


@dataclass(frozen=True)
class Chart:
    """Curves over the same axes."""

    key: str  # a short name, for files and anchors
    title: str
    caption: str  # how to read it, in a sentence
    x_label: str
    y_label: str
    series: Sequence[Series]  # the most important one last, so that it is drawn on top
    log_y: bool = False
    floor: float = 1e-7  # values below are cut off, on a logarithmic axis
    zero: bool = True  # whether a linear y-axis includes zero
    counts: bool = True  # whether x are counted things, so that nothing is between two of them

    def drawable(self, value: float | None) -> float | None:
        """`value` as it goes on the y-axis: its logarithm to base 10 on a logarithmic one."""
        if value is None or not math.isfinite(value):
            return None
        if not self.log_y:
            return value
        return math.log10(max(value, self.floor)) if value >= 0 else None

    def y_range(self) -> tuple[float, float]:
        """Return lowest and highest point on the y-axis, as `drawable` gives them."""
        drawn = [self.drawable(y) for series in self.series for y in series.y]
        known = [y for y in drawn if y is not None]
        if self.zero and not self.log_y:
            known.append(0.0)
        low, high = _spread(known)
        # Two powers of ten at least: noise around a level must not look like an event.
        return (min(low, high - LEAST_POWERS), high) if self.log_y else (low, high)

    def x_range(self) -> tuple[float, float]:
        """Return first and last point on the x-axis."""
        return _spread([x for series in self.series for x in series.x])

    @property
    def empty(self) -> bool:
        """Say whether there is nothing to draw."""
        return not any(series.known for series in self.series)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return about five round numbers from `low` to `high`; no fractions if `whole`."""
    raw = (high - low) / 5
    if whole:
        raw = max(1.0, math.ceil(raw))
    magnitude = 10 ** math.floor(math.log10(raw))
    sizes = (1, 2, 5) if whole and magnitude == 1 else (1, 2, 2.5, 5)
    step = next((size * magnitude for size in sizes if size * magnitude >= raw), 10 * magnitude)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return whole powers of ten between the logarithms `low` and `high`, thinned to about six."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    if last - first < 2:
        # Less than three powers of ten: 1, 2 and 5 times each.
        powers = range(math.floor(low), math.ceil(high) + 1)
        fine = [power + math.log10(digit) for power in powers for digit in (1, 2, 5)]
        inside = [value for value in fine if low <= value <= high]
        return inside if len(inside) > 1 else [low, high]
    step = max(1, math.ceil((last - first) / 6))
    return [float(power) for power in range(first, last + 1, step)]


def tick_text(value: float, *, log: bool = False) -> str:
    """Return a tick in as few characters as possible."""
    if log:
        if abs(value - round(value)) > 1e-9:
            return f"{10**value:.3g}"
        power = round(value)
        return f"{10.0**power:g}" if -3 <= power <= 3 else "10" + _superscript(power)
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}·10{_superscript(int(exponent))}"
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if size >= 1e4 else f"{value:g}"


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


class _Axes:
    """Where values are on the paper."""

    def __init__(self, chart: Chart) -> None:
        self.x_low, self.x_high = chart.x_range()
        low, high = chart.y_range()
        margin = 0.04 * (high - low)
        bottom = low if chart.zero and not chart.log_y and low == 0 else low - margin
        self.y_low, self.y_high = bottom, high + margin

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, drawn: float) -> float:
        share = (drawn - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def draw(chart: Chart) -> str:
    """Return the chart as an `<svg>` with a title, fit for a screen reader and for a pointer."""
    axes = _Axes(chart)
    parts = [
        f'<svg class="chart" id="chart-{chart.key}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}">',
        _grid(chart, axes),
        *(_curve(chart, series, axes) for series in chart.series),
        f'<line class="cross" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/>',
        "</svg>",
        _pointer_data(chart),
    ]
    return "".join(parts)


def legend(chart: Chart) -> str:
    """Return what each curve is, as HTML above the chart; the one on top is named first."""
    items = []
    for series in reversed(chart.series):
        items.append(
            f'<li><svg class="key" viewBox="0 0 22 8" aria-hidden="true"><line x1="0" x2="22" '
            f'y1="4" y2="4" class="curve {series.role}"{_dash(series)}/></svg>'
            f"{escape(series.name)}</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _dash(series: Series) -> str:
    lengths = " ".join(map(str, series.dash))
    return f' stroke-dasharray="{lengths}"' if lengths else ""


def _grid(chart: Chart, axes: _Axes) -> str:
    bottom = HEIGHT - BOTTOM
    y_ticks = (log_ticks if chart.log_y else ticks)(axes.y_low, axes.y_high)
    parts = ['<g class="axes">']
    for value in y_ticks:
        y = axes.y(value)
        text = tick_text(value, log=chart.log_y)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value in ticks(axes.x_low, axes.x_high, whole=chart.counts):
        x = axes.x(value)
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick_text(value)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    )
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    parts.append(f'<text x="2" y="11">{escape(chart.y_label)}</text></g>')
    return "".join(parts)


def _curve(chart: Chart, series: Series, axes: _Axes) -> str:
    commands: list[str] = []
    points: list[tuple[float, float]] = []
    command = "M"
    for value, height in zip(series.x, series.y, strict=True):
        drawn = chart.drawable(height)
        if drawn is not None:
            x, y = axes.x(value), axes.y(drawn)
            points.append((x, y))
            commands.append(f"{command}{x:.1f} {y:.1f}")
        command = "M" if drawn is None else "L"
    parts = [f'<path class="curve {series.role}" d="{"".join(commands)}"{_dash(series)}/>']
    # A curve of one point would be invisible as a line.
    if series.markers or len(points) == 1:
        parts += [
            f'<circle class="dot {series.role}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
            for x, y in points
        ]
    return "".join(parts)


def _pointer_data(chart: Chart) -> str:
    """Return the numbers behind the curves, for the page's script to show beside the pointer."""
    data = {
        "x": chart.x_range(),
        "box": [LEFT, WIDTH - RIGHT, WIDTH],
        "label": chart.x_label,
        "series": [
            {
                "name": series.name,
                "role": series.role,
                "x": [x if chart.counts else _short(x) for x in series.x],
                "y": [None if y is None else _short(y) for y in series.y],
            }
            for series in chart.series
        ],
    }
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return f'<script type="application/json">{text}</script>'


def _short(value: float) -> float:
    return float(f"{value:.4g}")
