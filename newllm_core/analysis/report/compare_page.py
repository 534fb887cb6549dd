"""Several checkpoints as one page: health, figures, settings that differ, and curves."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape

from newllm_core.analysis.criteria import STATUSES, Figures
from newllm_core.analysis.report.chart import DASHES, Chart
from newllm_core.analysis.report.charts import ROLES, split_charts
from newllm_core.analysis.report.figures import (
    LANGUAGE_MODEL,
    figure_rows,
    health_rows,
    last_text,
    number,
)
from newllm_core.analysis.report.html import chart_grid, figure_table, page, section, status, table
from newllm_core.config.values import text_of


def compare_page(comparison: Figures) -> str:
    """Return one self-contained HTML document about a report of `compare`."""
    entries = comparison["checkpoints"]
    names = [entry["name"] for entry in entries]
    settings, plugins = (
        [
            [escape(key), *(escape(setting(value)) for value in values)]
            for key, values in comparison[differences].items()
        ]
        for differences in ("config_differences", "plugin_differences")
    )
    texts, figures = zip(*map(last_text, entries), strict=True)
    more = max(0, sum(of_text is not None for of_text in figures) - len(ROLES))
    note = f'<p class="soft">The last {more} are in the tables only.</p>' if more else ""
    parameters = ["parameters", *(number(entry["parameters"]) for entry in entries)]
    body = [
        f"<h1>{len(entries)} checkpoints</h1>",
        '<p class="soft">Figures and curves are those of validation text, or of the only one there '
        "is; verdicts are the worse of both splits.</p>",
        section("Health", _health(entries)),
        section("Language model", _language_model(entries)),
        section(
            "Settings that differ",
            table(["setting", *names], settings) if settings else "<p>None.</p>",
        ),
        section("Plugins that differ", table(["plugin", *names], plugins)) if plugins else "",
        "<h2>Charts</h2>",
        note + chart_grid(comparison_curves(comparison)),
        section(
            "All figures",
            figure_table(names, figures, parameters, ["text", *texts]),
        ),
        "<footer>Made by newllm compare.</footer>",
    ]
    return page(f"newllm: {', '.join(names)}", "\n".join(filter(None, body)))


def comparison_curves(comparison: Figures) -> list[Chart]:
    """Return the charts of an analysis with a curve for every checkpoint, the first ones on top."""
    read = [(entry["name"], last_text(entry)[1]) for entry in comparison["checkpoints"]]
    whole = [(name, figures) for name, figures in read if figures is not None]
    drawn = list(zip(whole, ROLES, strict=False))
    columns = {name: (figures, role) for (name, figures), role in reversed(drawn)}
    dashes = dict(zip(ROLES, DASHES, strict=True))
    return [
        replace(
            chart, series=[replace(of, dash=dashes.get(of.role, of.dash)) for of in chart.series]
        )
        for chart in (split_charts(columns) if columns else [])
        if not chart.empty
    ]


def setting(value: object) -> str:
    """Return a setting as it is written in a config file; a dash for one that is absent."""
    return "–" if value is None else text_of(value)


def _health(entries: Sequence[Figures]) -> str:
    rows = [
        [escape(label), *(status(cell) if cell in STATUSES else cell for cell in cells)]
        for label, cells in health_rows(entries)
    ]
    return table(["section", *(entry["name"] for entry in entries)], rows)


def _language_model(entries: Sequence[Figures]) -> str:
    trained = [entry for entry in entries if entry["language_model"]]
    if not trained:
        return "<p>No checkpoint has trained heads yet: newllm phase2.</p>"
    figures = [
        (f"{label}, {split}", ("language_model", split, key))
        for key, label in LANGUAGE_MODEL.items()
        for split in ("validation", "train")
    ]
    rows = [[escape(label), *cells] for label, cells in figure_rows(trained, figures)]
    return table(["figure", *(entry["name"] for entry in trained)], rows)
