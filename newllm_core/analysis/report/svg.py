"""Charts as inline SVG. Colours come from the page's style, so that light and dark share them."""

import json
from html import escape

from newllm_core.analysis.report.chart import Chart, Series, log_ticks, tick_text, ticks

# Small enough that text stays readable when a phone scales it down.
WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 24, 42


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
        dash = ' stroke-dasharray="5 3"' if series.dashed else ""
        items.append(
            f'<li><svg class="key" viewBox="0 0 22 8" aria-hidden="true"><line x1="0" x2="22" '
            f'y1="4" y2="4" class="curve {series.role}"{dash}/></svg>{escape(series.name)}</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


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
    pen_down = False
    for value, height in zip(series.x, series.y, strict=True):
        drawn = chart.drawable(height)
        if drawn is None:
            pen_down = False
            continue
        x, y = axes.x(value), axes.y(drawn)
        commands.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        points.append((x, y))
        pen_down = True
    dash = ' stroke-dasharray="5 3"' if series.dashed else ""
    parts = [f'<path class="curve {series.role}" d="{"".join(commands)}"{dash}/>']
    # A curve of one point would be invisible as a line.
    if series.markers or len(points) == 1:
        parts += [
            f'<circle class="dot {series.role}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
            for x, y in points
        ]
    return "".join(parts)


def _pointer_data(chart: Chart) -> str:
    """Return the numbers behind the curves, for the page's script to show beside the pointer."""
    low, high = chart.x_range()
    data = {
        "x": [low, high],
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
