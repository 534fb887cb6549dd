"""The analysis of any matrix as a page."""

from collections.abc import Mapping
from html import escape
from typing import Any

from newllm_core.analysis.report.chart import Chart, Series
from newllm_core.analysis.report.charts import cosine_chart, spectrum_chart, variance_chart
from newllm_core.analysis.report.figures import number, shape_text
from newllm_core.analysis.report.html import card, chart_grid, figure_table, page, section, table

Figures = Mapping[str, Any]


def matrix_page(report: Figures) -> str:
    """Return one self-contained HTML document about a report of `analyze --tensor`."""
    name = f"{report['tensor']} in {report['file']}" if report["tensor"] else report["file"]
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{shape_text(report["shape"])}.</p>',
        chart_grid(matrix_charts(report)),
        section("All figures", card(figure_table(["value"], [report]))),
    ]
    if "singular_vectors" in report:
        rows = [
            [number(vector["singular_value"]), ", ".join(f"{r['id']:,}" for r in vector["rows"])]
            for vector in report["singular_vectors"]
        ]
        shown = table(["singular value", "rows that load on it most"], rows, words=(1,))
        body.append(section("Strongest directions", card(shown)))
    body.append("<footer>Made by newllm analyze.</footer>")
    return page(f"newllm: {name}", "\n".join(body))


def matrix_charts(report: Figures) -> list[Chart]:
    """Return what can be drawn of a matrix whose rows have no order."""
    if "histogram" not in report:
        columns = {"rows": (report, "train")}
        return [make(columns) for make in (spectrum_chart, cosine_chart, variance_chart)]
    found = report["histogram"]
    values = Chart(
        key="values",
        title="Distribution of the values",
        caption="Share of values around each place.",
        x_label="value",
        y_label="share of values",
        series=[Series("values", found["centres"], found["shares"], "train")],
        counts=False,
    )
    return [values]
