"""The analysis as a page of text that fits 80 columns: verdicts, figures, vectors, history."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from newllm_core.analysis.criteria import CRITERIA, DEGENERATE, HEALTHY, WEAK, Figures, cvfp_line
from newllm_core.analysis.report.figures import (
    by_section,
    difference_rows,
    figure_rows,
    look_up,
    names_in,
    num_iterations,
    number,
    printable,
    shape_text,
    short,
    unhealthy,
)

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
# Columns of what Phase 1 did by iteration, and Phase 2 to predictions and memory by epoch.
ITERATIONS = {
    "window": ("window",),
    "iteration": ("iteration",),
    "converged\ntrain": ("converged_ratio", "train"),
    "converged\nvalidation": ("converged_ratio", "validation"),
    "ER/D\ntrain": ("effective_rank_ratio", "train"),
    "ER/D\nvalidation": ("effective_rank_ratio", "validation"),
    "weight\nchange": ("weight_change",),
}
EPOCHS = {
    "epoch of\nPhase 2": ("epoch",),
    "bits/byte\nvalidation": ("validation", "bits_per_byte"),
    "ER/D": ("memory", "effective_rank_ratio"),
    "λ": ("memory", "lyapunov_exponent"),
    "tokens\nremembered": ("memory", "tokens_remembered"),
}
SMALLEST_DRAWN = 1e-6
CURVE_WIDTH = 28


def render_analysis(report: Figures, console: Console, *, whole_history: bool = False) -> None:
    """Print the report of a checkpoint: verdicts first, then the figures behind them."""
    train, control = report["train"], report["random_control"]
    console.print(Text(f"{report['checkpoint']}", style="bold"))
    console.print(
        f"{train['num_tokens']:,} contexts of {train['context_dim']} dimensions per split\n"
    )
    console.print(Text(cvfp_line(report), style="bold"), end="\n\n")
    console.print(_verdict_table(report["verdicts"]), "")
    worries = _worries(report["verdicts"])
    if worries:
        console.print(*worries, sep="\n", end="\n\n")
    columns = {
        "train": train,
        "validation": report["validation"],
        "control\ntrain": control["train"],
        "control\nvalidation": control["validation"],
    }
    # A network that newllm did not make may have neither validation text nor a control.
    shown = {k: of for k, of in columns.items() if of is not None or "convergence" in report}
    console.print(_figure_table(shown), "")
    if any(report["differences"].values()):
        console.print(_difference_table(report["differences"]), "")
    _print_curves({"train": train, "control": control["train"]}, console)
    console.print("", _vector_table(train, "tokens that load on it (train)"))
    if "convergence" in report:
        _print_history(report["convergence"], console, whole=whole_history)
        if report["epochs"]:
            console.print("", _entry_table(report["epochs"], EPOCHS))


def render_matrix(report: Figures, console: Console) -> None:
    """Print the report of a matrix in a file."""
    name = f"{report['tensor']} in {report['file']}" if report["tensor"] else report["file"]
    console.print(Text(name, style="bold"))
    console.print(shape_text(report["shape"]) + "\n")
    console.print(_figure_table({"value": report}))
    if "singular_vectors" in report:
        console.print("", _vector_table(report, "rows that load on it"))


def sparkline(values: Sequence[float | None], width: int = SPARK_WIDTH) -> str:
    """Draw `values` as one character each; thinned to `width`, with gaps for None."""
    if len(values) > width:
        values = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    low, span = min(known), max(known) - min(known)
    # A line that does not move is drawn along the bottom, as nothing to see.
    steps = (len(BARS) - 1) / span if span else 0.0
    return "".join(" " if value is None else BARS[round((value - low) * steps)] for value in values)


def plain_table(
    headings: Iterable[str], rows: Iterable[Sequence[str | Text]], *, words: int = 0
) -> Table:
    """Make a table without a frame, as every report uses it; the first columns hold `words`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _verdict_table(verdicts: Sequence[Figures]) -> Table:
    splits = list(dict.fromkeys(verdict["split"] for verdict in verdicts))
    rows = []
    for section, of_split in by_section(verdicts).items():
        cells = [
            _status(found["status"], f"{short(found['value']):>5}") if found else Text("–")
            for found in map(of_split.get, splits)
        ]
        limit = next(iter(of_split.values()))["healthy_if"]
        rows.append([section.replace("_", " "), *cells, limit])
    return plain_table(["section", *splits, "healthy if"], rows, words=len(splits) + 2)


def _status(status: str, words: str) -> Text:
    return Text.assemble((f"{status:<10}", COLOURS[status]), f" {words}")


def _worries(verdicts: Sequence[Figures]) -> list[Text]:
    """Return a line in words for every section that is not healthy, for all splits at once."""
    every = {verdict["split"] for verdict in verdicts}
    found = unhealthy(verdicts, lambda verdict: verdict["message"] + _missed(verdict))
    lines = []
    for (section, status, words), splits in found.items():
        where = "" if set(splits) == every else f" of {' and '.join(splits)}"
        lines.append(_status(status, f"{section.replace('_', ' ')}{where}: {words}"))
    return lines


def _missed(verdict: Figures) -> str:
    """Show the threshold that was missed; nothing where the number is not what is wrong."""
    value, threshold = verdict["value"], verdict["threshold"]
    criterion = CRITERIA.get(verdict["section"])
    if value is None or criterion is None or criterion.reaches(value, threshold):
        return ""
    return f" ({'below' if criterion.high_is_good else 'above'} {threshold:g})"


def _figure_table(columns: Mapping[str, Figures | None]) -> Table:
    rows = figure_rows(columns.values())
    return plain_table(["figure", *columns], ([Text(of), *cells] for of, cells in rows), words=1)


def _difference_table(differences: Figures) -> Table:
    """Return what training and new text change, with the errors of sampled figures."""
    names = {
        "train_minus_control": "train\n- control",
        "validation_minus_control": "validation\n- control",
        "validation_minus_train": "validation\n- train",
    }
    shown = {key: name for key, name in names.items() if differences.get(key)}
    found = difference_rows([differences[key] for key in shown])
    rows = ([label, *cells] for label, cells in found if any(cells))
    return plain_table(["difference", *shown.values()], rows, words=1)


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


def _vector_table(figures: Figures, heading: str) -> Table:
    title = "top singular values"
    table = plain_table([title], ())
    table.columns[0].min_width = len(title)  # long tokens take no room from it
    table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for vector in figures.get("singular_vectors", []):
        if "tokens" in vector:
            shown = "  ".join(printable(token["text"]) for token in vector["tokens"])
        else:
            shown = "  ".join(f"{row['id']}" for row in vector["rows"])
        table.add_row(number(vector["singular_value"]), Text(shown))
    return table


def _print_history(convergence: Figures, console: Console, *, whole: bool) -> None:
    history = convergence["history"]
    console.print()
    if convergence["vacuous_terms"]:
        names = ", ".join(convergence["vacuous_terms"])
        console.print(Text(f"loss terms without a gradient: {names}", style=COLOURS[DEGENERATE]))
    if not history:
        console.print("There is no history of Phase 1.")
        return
    title = f"As Phase 1 wrote it down when it trained, {num_iterations(history):,} iterations"
    console.print(Text(title, style="bold"))
    for group, label in (("sweep_terms", "loss"), ("gradient_norms", "gradient")):
        for name in names_in(history, group):
            curve = [look_up(entry, (group, name)) for entry in history]
            known = [value for value in curve if value is not None]
            if known:
                ends = f"{number(known[0])} → {number(known[-1])}"
                console.print(Text(f"{label + ' ' + name:<26} {sparkline(curve)}  {ends}"))
    last = len(history) - 1
    count = len(history) if whole else min(HISTORY_ROWS, len(history))
    chosen = sorted({i * last // max(1, count - 1) for i in range(count)})
    console.print("", _entry_table([history[index] for index in chosen], ITERATIONS))
    for entry in history:
        if entry.get("stopped_early"):
            console.print(
                f"window {entry.get('window')} stopped early after iteration "
                f"{entry.get('iteration')}: enough tokens had converged"
            )


def _entry_table(entries: Sequence[Figures], columns: Mapping[str, tuple[str, ...]]) -> Table:
    rows = ([number(look_up(entry, path)) for path in columns.values()] for entry in entries)
    return plain_table(columns, rows)
