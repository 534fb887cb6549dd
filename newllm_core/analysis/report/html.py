"""The parts every page is made of. A page is one file: styles, script, charts and numbers."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from newllm_core.analysis.criteria import DEGENERATE, HEALTHY, WEAK
from newllm_core.analysis.report.chart import Chart, draw, legend
from newllm_core.analysis.report.figures import figure_rows

# Nothing may be fetched, whatever a checkpoint's path or tokens contain.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
# Told apart without colour too.
SIGNS = {HEALTHY: "✓", WEAK: "!", DEGENERATE: "✗"}


def page(title: str, body: str) -> str:
    """Return a whole document."""
    folder = files("newllm_core.analysis.report")
    style = (folder / "style.css").read_text(encoding="utf-8")
    script = (folder / "pointer.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{body}\n</main>\n<script>\n{script}</script></body></html>\n"
    )


def chart_grid(charts: Sequence[Chart]) -> str:
    """Return charts side by side where there is room."""
    figures = [
        f'<figure class="card"><h3>{escape(chart.title)}</h3>'
        f'<p class="caption">{escape(chart.caption)}</p>{legend(chart)}{draw(chart)}</figure>'
        for chart in charts
        if not chart.empty
    ]
    return f'<div class="charts">{"".join(figures)}</div>'


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    words: Sequence[int] = (),
    kind: str = "",
) -> str:
    """Return a table of HTML cells; a first one that begins with a space is indented.

    Columns of `words` may wrap; `kind` is a class of the style.
    """

    def cell(tag: str, index: int, html: str) -> str:
        chosen = ' class="words"' if index in words else ""
        if index == 0 and html.startswith(" "):
            chosen, html = ' class="indent"', html.strip()
        return f"<{tag}{chosen}>{html}</{tag}>"

    head = "".join(cell("th", i, escape(text)) for i, text in enumerate(headings))
    body = "".join(
        "<tr>" + "".join(cell("td", i, html) for i, html in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure_table(
    names: Iterable[str], columns: Iterable[Mapping[str, Any] | None], *first: Sequence[str]
) -> str:
    """Return every figure of every column, below the rows that come `first`."""
    figures = ([escape(label), *cells] for label, cells in figure_rows(columns))
    return table(["figure", *names], [*first, *figures])


def status(name: str, value: str = "") -> str:
    """Return a verdict in colour, sign and word, and the value it is about."""
    shown = f'<span class="value">{escape(value)}</span>' if value else ""
    return f'<span class="status {name}">{SIGNS[name]} {name}</span>{shown}'


def section(title: str, html: str) -> str:
    """Return a box around `html` under its title."""
    return f"<h2>{title}</h2>\n{card(html)}"


def card(html: str) -> str:
    """Return a box around `html`."""
    return f'<div class="card">{html}</div>'
