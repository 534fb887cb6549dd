"""Several checkpoints as one page: health, figures, settings that differ, and curves."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from newllm_core.analysis.criteria import SECTIONS
from newllm_core.analysis.report.chart import Chart
from newllm_core.analysis.report.charts import split_charts
from newllm_core.analysis.report.figures import FIGURES, figure_at, number, worst_verdicts
from newllm_core.analysis.report.html import card, chart_grid, page, status, table

Figures = Mapping[str, Any]

# More curves in one chart could not be told apart.
ROLES = "abcdefgh"
LANGUAGE_MODEL = {
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word",
    "loss": "loss, nats per token",
    "accuracy": "accuracy",
}


def compare_page(comparison: Figures) -> str:
    """Return one self-contained HTML document about a report of `compare`."""
    entries = comparison["checkpoints"]
    names = [entry["name"] for entry in entries]
    settings_rows, plugin_rows = (
        [
            [escape(key), *(escape(setting(value)) for value in values)]
            for key, values in comparison[differences].items()
        ]
        for differences in ("config_differences", "plugin_differences")
    )
    charts = comparison_curves(comparison)
    more = max(0, sum(entry["validation"] is not None for entry in entries) - len(ROLES))
    note = f'<p class="soft">The last {more} are in the tables only.</p>' if more else ""
    body = [
        f"<h1>{len(entries)} checkpoints</h1>",
        '<p class="soft">Figures and curves are those of validation text; verdicts are the worse '
        "of both splits.</p>",
        "<h2>Health</h2>",
        card(_health(entries)),
        "<h2>Language model</h2>",
        card(_language_model(entries)),
        "<h2>Settings that differ</h2>",
        card(table(["setting", *names], settings_rows) if settings_rows else "<p>None.</p>"),
        *(
            ["<h2>Plugins that differ</h2>", card(table(["plugin", *names], plugin_rows))]
            if plugin_rows
            else []
        ),
        "<h2>Charts</h2>",
        note + chart_grid(charts),
        "<h2>All figures</h2>",
        card(_figures(entries)),
        "<footer>Made by newllm compare.</footer>",
    ]
    return page(f"newllm: {', '.join(names)}", "\n".join(body))


def comparison_curves(comparison: Figures) -> list[Chart]:
    """Return the charts of an analysis with a curve for every checkpoint, the first ones on top."""
    whole = [entry for entry in comparison["checkpoints"] if entry["validation"] is not None]
    drawn = list(zip(whole, ROLES, strict=False))
    columns = {entry["name"]: (entry["validation"], role) for entry, role in reversed(drawn)}
    return [chart for chart in split_charts(columns) if not chart.empty] if columns else []


def setting(value: object) -> str:
    """Return a setting as it is written in a config file; a dash for one that is absent."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _health(entries: Sequence[Figures]) -> str:
    rows = []
    for section in SECTIONS:
        cells = []
        for entry in entries:
            verdict = worst_verdicts(entry).get(section)
            cells.append(status(verdict["status"]) if verdict else "explodes")
        rows.append([escape(section.replace("_", " ")), *cells])
    return table(["section", *(entry["name"] for entry in entries)], rows)


def _language_model(entries: Sequence[Figures]) -> str:
    trained = [entry for entry in entries if entry["language_model"]]
    if not trained:
        return "<p>No checkpoint has trained heads yet: newllm phase2.</p>"
    rows = []
    for key, label in LANGUAGE_MODEL.items():
        for split in ("validation", "train"):
            values = [entry["language_model"][split][key] for entry in trained]
            if any(value is not None for value in values):
                rows.append([escape(f"{label}, {split}"), *(number(value) for value in values)])
    return table(["figure", *(entry["name"] for entry in trained)], rows)


def _figures(entries: Sequence[Figures]) -> str:
    rows = [["parameters", *(number(entry["parameters"]) for entry in entries)]]
    for label, path in FIGURES:
        values = [figure_at(entry["validation"], path) for entry in entries]
        if any(value is not None for value in values):
            shown = "&nbsp;" + escape(label.strip()) if label.startswith(" ") else escape(label)
            rows.append([shown, *(number(value) for value in values)])
    return table(["figure", *(entry["name"] for entry in entries)], rows)
