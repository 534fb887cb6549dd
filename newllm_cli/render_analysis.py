"""The analysis as a page of text that fits 80 columns: verdicts, figures, vectors, history."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from newllm_core.analysis.criteria import CRITERIA, DEGENERATE, HEALTHY, WEAK, cvfp_line
from newllm_core.analysis.differences import look_up
from newllm_core.analysis.report.figures import (
    DIFFERENCES,
    FIGURES,
    difference,
    figure_at,
    number,
    printable,
    shape_text,
    short,
)

Figures = Mapping[str, Any]

COLOURS = {HEALTHY: "green", WEAK: "yellow", DEGENERATE: "bold red"}
BARS = "▁▂▃▄▅▆▇█"
HISTORY_ROWS = 6
SPARK_WIDTH = 32

# Curves of the terminal: label, place, and whether the y-axis is logarithmic.
CURVES: list[tuple[str, tuple[str, ...], bool]] = [
    ("echo by token, log", ("echo_state", "distances_by_step"), True),
    ("drift by reading, log", ("repeat_drift", "by_repeat"), True),
    ("memory by lag", ("token_memory", "by_lag"), False),
    ("contribution by lag, log", ("contributions", "by_lag"), True),
    ("growth along a text", ("along_text", "log_growth"), False),
]
SMALLEST_DRAWN = 1e-6
CURVE_WIDTH = 28


def render_analysis(report: Figures, console: Console, *, whole_history: bool = False) -> None:
    """Print the report of a checkpoint: verdicts first, then the figures behind them."""
    train, control = report["train"], report["random_control"]
    console.print(Text(f"{report['checkpoint']}", style="bold"))
    console.print(
        f"{train['num_tokens']:,} contexts of {train['context_dim']} dimensions per split\n"
    )
    console.print(Text(cvfp_line(report), style="bold"))
    console.print()
    console.print(_verdict_table(report["verdicts"]))
    console.print()
    worries = _worries(report["verdicts"])
    for line in worries:
        console.print(line)
    if worries:
        console.print()
    columns = {
        "train": train,
        "validation": report["validation"],
        "control\ntrain": control["train"],
        "control\nvalidation": control["validation"],
    }
    # A network that newllm did not make may have neither validation text nor a control.
    shown = {k: of for k, of in columns.items() if of is not None or "convergence" in report}
    console.print(_figure_table(shown))
    console.print()
    if any(report["differences"].values()):
        console.print(_difference_table(report["differences"]))
        console.print()
    _print_curves({"train": train, "control": control["train"]}, console)
    console.print()
    _print_vectors(train, console, "tokens that load on it (train)")
    if "convergence" in report:
        _print_history(report["convergence"], console, rows=None if whole_history else HISTORY_ROWS)
        _print_epochs(report["epochs"], console)


def render_matrix(report: Figures, console: Console) -> None:
    """Print the report of a matrix in a file."""
    name = f"{report['tensor']} in {report['file']}" if report["tensor"] else report["file"]
    console.print(Text(name, style="bold"))
    console.print(shape_text(report["shape"]) + "\n")
    console.print(_figure_table({"value": report}))
    if "singular_vectors" in report:
        console.print()
        _print_vectors(report, console, "rows that load on it")


def sparkline(values: Sequence[float | None], width: int = SPARK_WIDTH) -> str:
    """`values` as one character each, smallest to largest; thinned to `width`, gaps for None."""
    if len(values) > width:
        values = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    low, span = min(known), max(known) - min(known)
    # A line that does not move is drawn along the bottom, as nothing to see.
    steps = (len(BARS) - 1) / span if span else 0.0
    return "".join(" " if value is None else BARS[round((value - low) * steps)] for value in values)


def _verdict_table(verdicts: Sequence[Figures]) -> Table:
    splits = list(dict.fromkeys(verdict["split"] for verdict in verdicts))
    table = plain_table()
    for heading in ("section", *splits, "healthy if"):
        table.add_column(heading, no_wrap=True)
    by_section: dict[str, dict[str, Figures]] = {}
    for verdict in verdicts:
        by_section.setdefault(verdict["section"], {})[verdict["split"]] = verdict
    for section, of_split in by_section.items():
        cells = [_status(of_split[split]) if split in of_split else Text("–") for split in splits]
        limit = next(iter(of_split.values()))["healthy_if"]
        table.add_row(section.replace("_", " "), *cells, limit)
    return table


def _status(verdict: Figures) -> Text:
    status = verdict["status"]
    return Text.assemble((f"{status:<10}", COLOURS[status]), f" {short(verdict['value']):>5}")


def _worries(verdicts: Sequence[Figures]) -> list[Text]:
    """A line in words for every section that is not healthy; splits of the same words share it."""
    every = {verdict["split"] for verdict in verdicts}
    found: dict[tuple[str, str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict["status"] != HEALTHY:
            words = verdict.get("message", "") + _missed(verdict)
            found.setdefault((verdict["section"], verdict["status"], words), []).append(
                verdict["split"]
            )
    lines = []
    for (section, status, words), splits in found.items():
        where = "" if set(splits) == every else f" of {' and '.join(splits)}"
        text = f" {section.replace('_', ' ')}{where}: {words}"
        lines.append(Text.assemble((f"{status:<10}", COLOURS[status]), text))
    return lines


def _missed(verdict: Figures) -> str:
    """Show the threshold that was missed; nothing where the number is not what is wrong."""
    value, threshold = verdict["value"], verdict["threshold"]
    criterion = CRITERIA.get(verdict["section"])
    if value is None or criterion is None:
        return ""
    if criterion.high_is_good:
        return f" (below {threshold:g})" if value < threshold else ""
    return f" (above {threshold:g})" if value > threshold else ""


def plain_table() -> Table:
    """Show a table without a frame, as every report uses it."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))


def _figure_table(columns: Mapping[str, Figures | None]) -> Table:
    table = plain_table()
    table.add_column("figure", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for label, path in FIGURES:
        cells = [figure_at(figures, path) for figures in columns.values()]
        if any(cell is not None for cell in cells):
            table.add_row(Text(label), *(number(cell) for cell in cells))
    return table


def _difference_table(differences: Figures) -> Table:
    """What training and new text change, with the error of a difference of sampled figures."""
    names = {
        "train_minus_control": "train\n- control",
        "validation_minus_control": "validation\n- control",
        "validation_minus_train": "validation\n- train",
    }
    shown = {key: name for key, name in names.items() if differences.get(key)}
    table = plain_table()
    table.add_column("difference", no_wrap=True)
    for name in shown.values():
        table.add_column(name, justify="right", no_wrap=True)
    for figure, label in DIFFERENCES.items():
        cells = [difference(differences[key].get(figure)) for key in shown]
        if any(cells):
            table.add_row(label, *cells)
    return table


def _print_curves(columns: Mapping[str, Figures | None], console: Console) -> None:
    for label, path, logarithmic in CURVES:
        for index, (name, figures) in enumerate(columns.items()):
            values = look_up(figures, path)
            if not values:
                continue
            drawn = [
                math.log(max(value, SMALLEST_DRAWN)) if logarithmic and value is not None else value
                for value in values
            ]
            ends = f"{number(values[0])} → {number(values[-1])}"
            line = f"{'' if index else label:<22} {name:<8}{sparkline(drawn, CURVE_WIDTH)}  {ends}"
            console.print(Text(line))


def _print_vectors(figures: Figures, console: Console, heading: str) -> None:
    table = plain_table()
    table.add_column("top singular values", justify="right", no_wrap=True)
    table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for vector in figures.get("singular_vectors", []):
        if "tokens" in vector:
            shown = "  ".join(printable(token["text"]) for token in vector["tokens"])
        else:
            shown = "  ".join(f"{row['id']}" for row in vector["rows"])
        table.add_row(number(vector["singular_value"]), Text(shown))
    console.print(table)


def _print_history(convergence: Figures, console: Console, rows: int | None) -> None:
    history = convergence["history"]
    console.print()
    if convergence["vacuous_terms"]:
        names = ", ".join(convergence["vacuous_terms"])
        console.print(Text(f"loss terms without a gradient: {names}", style=COLOURS[DEGENERATE]))
    if not history:
        console.print("Phase 1 has no history: it trained nothing.")
        return
    title = f"As Phase 1 wrote it down when it trained, {len(history)} iterations"
    console.print(Text(title, style="bold"))
    for group, label in (("sweep_terms", "loss"), ("gradient_norms", "gradient")):
        for name in dict.fromkeys(name for entry in history for name in entry.get(group) or {}):
            curve = [(entry.get(group) or {}).get(name) for entry in history]
            known = [value for value in curve if value is not None]
            if known:
                line = sparkline(curve)
                ends = f"{number(known[0])} → {number(known[-1])}"
                console.print(Text(f"{label + ' ' + name:<26} {line}  {ends}"))
    console.print()
    console.print(_history_table(history, len(history) if rows is None else rows))
    for entry in history:
        if entry.get("stopped_early"):
            console.print(
                f"window {entry.get('window')} stopped early after iteration "
                f"{entry.get('iteration')}: enough tokens had converged"
            )


def _print_epochs(epochs: Sequence[Figures], console: Console) -> None:
    """Show what Phase 2 did to predictions and to the memory, epoch by epoch."""
    if not epochs:
        return
    table = plain_table()
    headings = ("epoch of\nPhase 2", "bits/byte\nvalidation", "ER/D", "λ", "tokens\nremembered")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in epochs:
        memory = entry.get("memory") or {}
        names = ("effective_rank_ratio", "lyapunov_exponent", "tokens_remembered")
        values = [look_up(entry, ("validation", "bits_per_byte")), *map(memory.get, names)]
        table.add_row(number(entry.get("epoch")), *(number(value) for value in values))
    console.print()
    console.print(table)


def _history_table(history: Sequence[Figures], rows: int) -> Table:
    table = plain_table()
    headings = ("window", "iteration", "converged\ntrain", "converged\nvalidation")
    for heading in (*headings, "ER/D\ntrain", "ER/D\nvalidation", "weight\nchange"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = len(history) - 1
    count = min(rows, len(history))
    for index in sorted({i * last // max(1, count - 1) for i in range(count)}):
        entry = history[index]
        pairs = [
            (entry.get(key) or {}).get(split)
            for key in ("converged_ratio", "effective_rank_ratio")
            for split in ("train", "validation")
        ]
        values = [entry.get("window"), entry.get("iteration"), *pairs, entry.get("weight_change")]
        table.add_row(*(number(value) for value in values))
    return table
