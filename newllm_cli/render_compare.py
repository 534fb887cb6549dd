"""Checkpoints side by side, as text that fits 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from newllm_cli.render_analysis import COLOURS, plain_table
from newllm_core.analysis.criteria import Figures
from newllm_core.analysis.report.compare_page import setting
from newllm_core.analysis.report.figures import (
    LANGUAGE_MODEL,
    figure_rows,
    health_rows,
    last_text,
    look_up,
    number,
)

# So many fit beside the labels; more get tables of their own.
COLUMNS_AT_ONCE = 4
CONTEXTS = {
    "ER/D": ("effective_rank_ratio",),
    "pair cosine": ("pairwise_cosine", "mean"),
    "step cosine": ("identity_cosine", "mean"),
    "token cosine": ("token_dependency", "mean_cosine"),
    "Lyapunov exponent λ": ("lyapunov_exponent", "mean"),
    "memory horizon": ("memory_horizon",),
    "echo left at the end": ("echo_state", "index"),
    "sweeps to 1%": ("sweeps", "measured", "1%"),
    "tokens remembered": ("token_memory", "total"),
    "tokens kept": ("token_memory", "kept"),
}
HEADS = [(label, ("language_model", "validation", key)) for key, label in LANGUAGE_MODEL.items()]
# The label of a figure or setting, and a cell for every checkpoint.
Row = tuple[str, Sequence[str | Text]]


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
            ("contexts", _contexts(chosen)),
            ("language model", list(figure_rows(chosen, HEADS))),
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


def _table(title: str, letters: Sequence[str], rows: Sequence[Row]) -> Table:
    table = plain_table([title, *letters], ([label, *cells] for label, cells in rows), words=1)
    for column in table.columns:
        column.max_width = 22
    table.columns[0].max_width = 28
    return table


def _health(entries: Sequence[Figures]) -> list[Row]:
    return [
        (label, [Text(cell, style=COLOURS.get(cell, "")) for cell in cells])
        for label, cells in health_rows(entries)
    ]


def _contexts(entries: Sequence[Figures]) -> list[Row]:
    texts, figures = zip(*map(last_text, entries), strict=True)
    return [
        ("parameters", [number(entry["parameters"]) for entry in entries]),
        ("text", texts),
        *(
            (label, [number(look_up(of_text, path)) for of_text in figures])
            for label, path in CONTEXTS.items()
        ),
    ]


def _settings(differing: Mapping[str, Sequence[Any]], part: slice) -> list[Row]:
    return [(key, [setting(value) for value in values[part]]) for key, values in differing.items()]
