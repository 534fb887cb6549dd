"""The analysis of one checkpoint, or of any matrix, as a page: verdicts, charts, numbers."""

from collections.abc import Sequence
from html import escape

from newllm_core.analysis.criteria import CRITERIA, DEGENERATE, HEALTHY, WEAK, Figures, cvfp_line
from newllm_core.analysis.report.chart import Chart, Series
from newllm_core.analysis.report.charts import (
    analysis_charts,
    cosine_chart,
    spectrum_chart,
    variance_chart,
)
from newllm_core.analysis.report.figures import (
    by_section,
    difference_rows,
    look_up,
    names_in,
    num_iterations,
    number,
    printable,
    shape_text,
    short,
    unhealthy,
)
from newllm_core.analysis.report.html import chart_grid, figure_table, page, section, status, table
from newllm_core.checkpoint.metadata import SPLITS

TILES: list[tuple[str, tuple[str, ...]]] = [
    ("effective rank / dimensions", ("effective_rank_ratio",)),
    ("Lyapunov exponent λ", ("lyapunov_exponent", "mean")),
    ("memory horizon, tokens", ("memory_horizon",)),
    ("tokens kept", ("token_memory", "kept")),
]
ALONG_TEXT = (
    "Growth of a small disturbance by each token of the first passage, ln: red where it grows, "
    "blue where the past is forgotten."
)
DIFFERENCE_COLUMNS = {
    "train_minus_control": "train − untrained",
    "validation_minus_control": "validation − untrained",
    "validation_minus_train": "validation − train",
}


def analysis_page(report: Figures) -> str:
    """Return one self-contained HTML document about a report of `analyze`."""
    train, control = report["train"], report["random_control"]
    name = str(report["checkpoint"])
    columns = {
        "train": train,
        "validation": report["validation"],
        "untrained, train": control["train"],
        "untrained, validation": control["validation"],
    }
    known = {name: figures for name, figures in columns.items() if figures is not None}
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{train["num_tokens"]:,} contexts of {train["context_dim"]} dimensions '
        f"{_beside(report)}</p>",
        f"<p><b>{escape(cvfp_line(report))}.</b></p>",
        _lead(report["verdicts"]),
        _tiles(report),
        section("Verdicts", _verdict_table(report["verdicts"])),
        "<h2>Charts</h2>",
        chart_grid(analysis_charts(report)),
        section("What training and new text change", _differences(report["differences"])),
        section("All figures", figure_table(known, known.values())),
        section("Where it forgets", _along_text(report["validation"] or train)),
        section("Strongest directions of the contexts", _vectors(train)),
    ]
    if "convergence" in report:
        body.append(section("History of Phase 1", _history(report["convergence"])))
    body.append(
        "<footer>Made by newllm analyze. Thresholds are the settings "
        "in [healthy] and [gate].</footer>"
    )
    return page(f"newllm: {name}", "\n".join(body))


def _beside(report: Figures) -> str:
    text = "from the text"
    if report["validation"]:
        text = "from training text and as many from validation text"
    if any(report["random_control"].values()):
        text += ", next to the same network untrained"
    return text + ". Large figures are those of the last of them."


def _verdict_table(verdicts: Sequence[Figures]) -> str:
    """Return a row for every section, a column for every split, and what the threshold is."""
    splits = list(dict.fromkeys(verdict["split"] for verdict in verdicts))
    rows = []
    for name, found in by_section(verdicts).items():
        cells = [
            status(found[split]["status"], short(found[split]["value"]).replace("-", "−"))
            if split in found
            else "–"
            for split in splits
        ]
        limit = next(iter(found.values()))["healthy_if"]
        why = CRITERIA[name].why() if name in CRITERIA else ""
        words = " · ".join(dict.fromkeys(v["message"] for v in found.values()))
        named = (
            f'<span title="{escape(why)}">{escape(name.replace("_", " "))}</span>'
            f'<div class="caption">{escape(words)}; healthy if <span class="limit">'
            f"{escape(limit)}</span></div>"
        )
        rows.append([named, *cells])
    return table(["section", *splits], rows, words=(0,), kind="verdicts")


def _lead(verdicts: Sequence[Figures]) -> str:
    """Return the verdicts in a sentence, and in a list what is wrong."""
    found = unhealthy(verdicts, lambda verdict: str(verdict["message"]))
    splits = {verdict["split"] for verdict in verdicts}
    if not found:
        where = ", on both splits" if len(splits) > 1 else ""
        return f'<div class="lead">{status(HEALTHY)} in every section{where}.</div>'
    worst = DEGENERATE if any(name == DEGENERATE for _, name, _ in found) else WEAK
    items = "".join(
        f"<li><b>{escape(of.replace('_', ' '))}</b> is {name}"
        f"{'' if len(on) == len(splits) else ' on ' + escape(on[0])}: {escape(words)}</li>"
        for (of, name, words), on in found.items()
    )
    sections = {verdict["section"] for verdict in verdicts}
    ill = {of for of, _, _ in found}
    return (
        f'<div class="lead">{status(worst)} {len(sections) - len(ill)} of {len(sections)} sections '
        f"are healthy.<ul>{items}</ul></div>"
    )


def _tiles(report: Figures) -> str:
    last = "validation" if report["validation"] else "train"
    control = report["random_control"][last]
    tiles = []
    for name, path in TILES:
        train, validation = (look_up(report[split], path) for split in ("train", last))
        untrained = look_up(control, path)
        tiles.append(
            f'<div class="card tile"><div class="name">{escape(name)}</div>'
            f'<div class="value">{_tile(validation)}</div>'
            f'<div class="beside"><span>train {_tile(train)}</span> · '
            f"<span>untrained {_tile(untrained)}</span></div></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _differences(differences: Figures) -> str:
    shown = {key: name for key, name in DIFFERENCE_COLUMNS.items() if differences.get(key)}
    rows = [
        [escape(label), *(cell or "–" for cell in cells)]
        for label, cells in difference_rows([differences[key] for key in shown])
    ]
    return table(["figure", *shown.values()], rows) + (
        '<p class="caption">± is the standard error that sampling leaves; figures without one '
        "were computed on every context.</p>"
    )


def _along_text(figures: Figures) -> str:
    """Show the first passage: red where a disturbance grows, blue where it is forgotten."""
    found = figures["along_text"]
    shown = []
    for text, growth in zip(found["texts"], found["log_growth"], strict=True):
        strength = min(1.0, abs(growth or 0.0))
        colour = "220,60,60" if (growth or 0.0) > 0 else "60,110,220"
        shown.append(
            f'<span class="token" style="background:rgba({colour},{strength:.2f})" '
            f'title="{number(growth)}">{escape(printable(text))}</span>'
        )
    return f'<p class="caption">{ALONG_TEXT}</p><div>{"".join(shown)}</div>'


def _vectors(figures: Figures) -> str:
    rows = []
    for vector in figures["singular_vectors"]:
        tokens = "".join(
            f'<span class="token" title="loading {token["loading"]:.3g}">'
            f"{escape(printable(token['text']))}</span>"
            for token in vector["tokens"]
        )
        rows.append([number(vector["singular_value"]), tokens])
    return table(["singular value", "tokens whose contexts load on it most"], rows, words=(1,))


def _history(convergence: Figures) -> str:
    history = convergence["history"]
    vacuous = escape(", ".join(convergence["vacuous_terms"]))
    bad = status(DEGENERATE)
    warning = f"<p>{bad} terms without a gradient: {vacuous}</p>" if vacuous else ""
    if not history:
        return warning + "<p>There is none.</p>"
    names = names_in(history, "sweep_terms")
    columns: dict[str, tuple[str, ...]] = {"window": ("window",), "iteration": ("iteration",)}
    columns |= {f"loss {name}": ("sweep_terms", name) for name in names}
    columns |= {f"gradient {name}": ("gradient_norms", name) for name in names}
    columns |= {f"converged, {split}": ("converged_ratio", split) for split in SPLITS}
    columns |= {f"ER/D, {split}": ("effective_rank_ratio", split) for split in SPLITS}
    columns["weight change"] = ("weight_change",)
    rows = [[number(look_up(entry, path)) for path in columns.values()] for entry in history]
    shown = table(list(columns), rows)
    title = f"{num_iterations(history):,} iterations"
    return f"{warning}<details><summary>{title}</summary>{shown}</details>"


def matrix_page(report: Figures) -> str:
    """Return one self-contained HTML document about a report of `analyze --tensor`."""
    name = f"{report['tensor']} in {report['file']}" if report["tensor"] else report["file"]
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{shape_text(report["shape"])}.</p>',
        chart_grid(matrix_charts(report)),
        section("All figures", figure_table(["value"], [report])),
    ]
    if "singular_vectors" in report:
        rows = [
            [number(vector["singular_value"]), ", ".join(f"{r['id']:,}" for r in vector["rows"])]
            for vector in report["singular_vectors"]
        ]
        shown = table(["singular value", "rows that load on it most"], rows, words=(1,))
        body.append(section("Strongest directions", shown))
    body.append("<footer>Made by newllm analyze.</footer>")
    return page(f"newllm: {name}", "\n".join(body))


def matrix_charts(report: Figures) -> list[Chart]:
    """Return what can be drawn of a matrix whose rows have no order."""
    if "histogram" not in report:
        columns = {"rows": (report, "train")}
        return [make(columns) for make in (spectrum_chart, cosine_chart, variance_chart)]
    found = report["histogram"]
    return [
        Chart(
            key="values",
            title="Distribution of the values",
            caption="Share of values around each place.",
            x_label="value",
            y_label="share of values",
            series=[Series("values", found["centres"], found["shares"], "train")],
            counts=False,
        )
    ]
