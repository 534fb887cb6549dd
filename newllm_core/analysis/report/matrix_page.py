"""The analysis of any matrix as a page."""

from collections.abc import Mapping
from html import escape
from typing import Any

from newllm_core.analysis.report.analysis_page import figure_table
from newllm_core.analysis.report.chart import Chart
from newllm_core.analysis.report.charts import cosine_chart, spectrum_chart, variance_chart
from newllm_core.analysis.report.figures import number
from newllm_core.analysis.report.html import card, chart_grid, page, table

Figures = Mapping[str, Any]


def matrix_page(report: Figures) -> str:
    """Return one self-contained HTML document about a report of `analyze --tensor`."""
    rows, columns = report["shape"]
    name = f"{report['tensor']} in {report['file']}" if report["tensor"] else report["file"]
    vectors = [
        [number(vector["singular_value"]), ", ".join(f"{row['id']:,}" for row in vector["rows"])]
        for vector in report["singular_vectors"]
    ]
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{rows:,} rows of {columns:,} dimensions.</p>',
        chart_grid(matrix_charts(report)),
        "<h2>All figures</h2>",
        card(figure_table({"value": report})),
        "<h2>Strongest directions</h2>",
        card(table(["singular value", "rows that load on it most"], vectors, words=(1,))),
        "<footer>Made by newllm analyze.</footer>",
    ]
    return page(f"newllm: {name}", "\n".join(body))


def matrix_charts(report: Figures) -> list[Chart]:
    """Return what can be drawn of a matrix whose rows have no order."""
    columns = {"rows": (report, "train")}
    return [make(columns) for make in (spectrum_chart, cosine_chart, variance_chart)]
