"""What came of a sweep: a table, a page with charts, and the best settings as TOML."""

import json
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from newllm_core.analysis.report.chart import Chart, Series
from newllm_core.analysis.report.html import card, chart_grid, page, table
from newllm_core.files.atomic import write_atomically
from newllm_sweep.plan import Plan
from newllm_sweep.study import FAILURE, Trials, is_allowed


def sweep_report(plan: Plan, trials: Trials) -> dict[str, Any]:
    """Return every trial and the numbers of the best, as JSON has it."""
    found = []
    for trial in trials.all():
        values = trial.values if trial.values is not None else [None] * len(plan.objectives)
        found.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "parameters": dict(trial.params),
                "figures": dict(zip(plan.objectives, values, strict=True)),
                "allowed": is_allowed(trial),
                "failure": trial.user_attrs.get(FAILURE),
                "folder": str(trials.folder_of(trial)),
            }
        )
    best = [trial.number for trial in trials.best()]
    return {"schema": 1, "objectives": dict(plan.objectives), "best": best, "trials": found}


def write_best(plan: Plan, trials: Trials) -> list[Path]:
    """Write the settings of the best trials as files that --config reads; return their paths.

    Those of trials that have been beaten since are removed.
    """
    written = []
    several = len(plan.objectives) > 1
    known, best = trials.all(), trials.best()  # what another process finishes in between is kept
    for trial in best:
        path = trials.folder / (f"best-{trial.number:04d}.toml" if several else "best.toml")
        figures = zip(plan.objectives, trial.values, strict=True)
        told = ", ".join(f"{name} = {value:.6g}" for name, value in figures)
        lines = [f"# trial {trial.number}: {told}"]
        lines += [f"# newllm {' '.join(words)}" for words in plan.commands]
        for section in sorted({key.partition(".")[0] for key in trial.params}):
            lines.append(f"\n[{section}]")
            of = {k: v for k, v in trial.params.items() if k.partition(".")[0] == section}
            lines += [f"{key.partition('.')[2]} = {json.dumps(value)}" for key, value in of.items()]
        text = "\n".join(lines) + "\n"
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
        written.append(path)
    for beaten in {trial.number for trial in known} - {trial.number for trial in best}:
        (trials.folder / f"best-{beaten:04d}.toml").unlink(missing_ok=True)
    return written


def fill_table(report: dict[str, Any], plan: Plan, console: Console) -> None:
    """Print the trials, the best ones marked."""
    headings, rows = _rows(report, plan)
    shown = Table()
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def sweep_page(report: dict[str, Any], plan: Plan) -> str:
    """Return one self-contained HTML document."""
    headings, rows = _rows(report, plan)
    done = [trial for trial in report["trials"] if trial["state"] == "complete"]
    charts = []
    for number, name in enumerate(plan.objectives):
        values = [trial["figures"][name] for trial in done]
        order = [trial["number"] for trial in done]
        charts.append(
            _dots(f"trials-{number}", f"{name}, trial by trial", "trial", name, order, values)
        )
        for place, key in enumerate(plan.parameters):
            at = [trial["parameters"][key] for trial in done]
            if at and all(type(value) in (int, float) for value in at):
                charts.append(
                    _dots(f"of-{number}-{place}", f"{name} by {key}", key, name, at, values)
                )
    if len(plan.objectives) == 2:
        first, second = plan.objectives
        ends = [[trial["figures"][name] for trial in done] for name in (first, second)]
        charts.insert(0, _dots("front", "One objective against the other", first, second, *ends))
    body = [
        f"<h1>Sweep of {len(rows)} trials</h1>",
        card(table(headings, [[escape(cell) for cell in row] for row in rows])),
        chart_grid(charts),
    ]
    return page("newllm sweep", "\n".join(body))


def _dots(key: str, title: str, x_label: str, y_label: str, x: list[Any], y: list[Any]) -> Chart:
    """Points that are not connected: a gap follows each."""
    pairs = sorted(zip(x, y, strict=True))
    xs = [value for at, _ in pairs for value in (at, at)]
    ys = [value for _, height in pairs for value in (height, None)]
    series = Series(y_label, xs, ys, "validation", markers=True)
    return Chart(
        key, title, "One dot a trial.", x_label, y_label, [series], zero=False, counts=False
    )


def _rows(report: dict[str, Any], plan: Plan) -> tuple[list[str], list[list[str]]]:
    headings = ["trial", *plan.parameters, *plan.objectives, ""]
    rows = []
    for trial in report["trials"]:
        remark = trial["failure"] or ("" if trial["state"] == "complete" else trial["state"])
        if trial["number"] in report["best"]:
            remark = "best" if len(plan.objectives) == 1 else "on the front"
        elif trial["state"] == "complete" and not trial["allowed"]:
            remark = "breaks a constraint"
        parameters = [_shown(trial["parameters"].get(key)) for key in plan.parameters]
        figures = [_shown(trial["figures"][name]) for name in plan.objectives]
        rows.append([str(trial["number"]), *parameters, *figures, remark])
    return headings, rows


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
