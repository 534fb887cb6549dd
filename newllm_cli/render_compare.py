"""Checkpoints side by side, as text that fits 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from newllm_cli.render_analysis import COLOURS, plain_table
from newllm_core.analysis.criteria import DEGENERATE, HEALTHY, SECTIONS, WEAK, Figures
from newllm_core.analysis.report.compare_page import setting
from newllm_core.analysis.report.figures import LANGUAGE_MODEL, figure_at, number, worst_verdicts

# So many fit beside the labels; more get tables of their own.
COLUMNS_AT_ONCE = 5
SIGNS = {HEALTHY: "ok", WEAK: "weak", DEGENERATE: "degenerate"}
SHOWN: list[tuple[str, tuple[str, ...]]] = [
    ("ER/D", ("effective_rank_ratio",)),
    ("pair cosine", ("pairwise_cosine", "mean")),
    ("step cosine", ("identity_cosine", "mean")),
    ("token cosine", ("token_dependency", "mean_cosine")),
    ("Lyapunov exponent λ", ("lyapunov_exponent", "mean")),
    ("memory horizon", ("memory_horizon",)),
    ("echo left at the end", ("echo_state", "index")),
    ("sweeps to 1%", ("sweeps", "measured", "1%")),
    ("tokens remembered", ("token_memory", "total")),
]


def render_compare(comparison: Figures, console: Console) -> None:
    """Print who is who, then health, figures, language model and settings."""
    entries = comparison["checkpoints"]
    for number_, entry in enumerate(entries):
        console.print(Text.assemble((_letter(number_), "bold"), f"  {entry['checkpoint']}"))
    for begin in range(0, len(entries), COLUMNS_AT_ONCE):
        part = slice(begin, begin + COLUMNS_AT_ONCE)
        chosen = entries[part]
        letters = [_letter(begin + index) for index in range(len(chosen))]
        for title, rows in (
            ("health, the worse split", _health(chosen)),
            ("contexts, validation", _contexts(chosen)),
            ("language model", _language_model(chosen)),
            ("settings that differ", _settings(comparison["config_differences"], part)),
            ("plugins that differ", _settings(comparison["plugin_differences"], part)),
        ):
            if rows:
                console.print()
                console.print(_table(title, letters, rows))


def _letter(index: int) -> str:
    """Name a column A, B, … Z, AA, AB and so on."""
    head, last = divmod(index, 26)
    return (_letter(head - 1) if head else "") + chr(ord("A") + last)


def _table(title: str, letters: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    table = plain_table(title, *letters, words=1)
    for column in table.columns:
        column.max_width = 22
    table.columns[0].max_width = 28
    for row in rows:
        table.add_row(*row)
    return table


def _health(entries: Sequence[Figures]) -> list[list[str | Text]]:
    verdicts = [worst_verdicts(entry) for entry in entries]
    rows: list[list[str | Text]] = []
    for section in SECTIONS:
        found = [of_entry.get(section) for of_entry in verdicts]
        cells = [
            Text(SIGNS[v["status"]], style=COLOURS[v["status"]]) if v else Text("explodes")
            for v in found
        ]
        rows.append([section.replace("_", " "), *cells])
    return rows


def _contexts(entries: Sequence[Figures]) -> list[list[str | Text]]:
    rows: list[list[str | Text]] = [["parameters", *(number(e["parameters"]) for e in entries)]]
    for label, path in SHOWN:
        rows.append([label, *(number(figure_at(e["validation"], path)) for e in entries)])
    return rows


def _language_model(entries: Sequence[Figures]) -> list[list[str | Text]]:
    rows: list[list[str | Text]] = []
    for key, label in LANGUAGE_MODEL.items():
        values = [((e["language_model"] or {}).get("validation") or {}).get(key) for e in entries]
        if any(value is not None for value in values):
            rows.append([label, *(number(value) for value in values)])
    return rows


def _settings(differing: Mapping[str, Sequence[Any]], part: slice) -> list[list[str | Text]]:
    return [[key, *map(setting, values[part])] for key, values in differing.items()]
