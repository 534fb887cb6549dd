"""The charts of an analysis, made from its JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from newllm_core.analysis.criteria import Figures
from newllm_core.analysis.report.chart import DASHED, Chart, Series, Values
from newllm_core.analysis.report.figures import Place, look_up, names_in

# Name of a curve to the figures it shows and its role.
Columns = Mapping[str, tuple[Figures, str]]

SMALLEST_SHARE = 0.01
SMALLEST_ERROR = 1e-6
# More curves in one chart could not be told apart.
ROLES = "abcdefgh"
# More points than that are a line, not dots.
MOST_MARKERS = 40


def analysis_charts(report: Figures) -> list[Chart]:
    """Return every chart that this report has data for."""
    history = report["convergence"]["history"] if "convergence" in report else []
    last = "validation" if report["validation"] else "train"
    # The random control comes first, to lie below.
    columns = {
        "untrained": (report["random_control"][last], "control"),
        **{split: (report[split], split) for split in ("train", "validation")},
    }
    known = {name: column for name, column in columns.items() if column[0]}
    charts = [*history_charts(history), *split_charts(known)]
    return [chart for chart in charts if not chart.empty]


def split_charts(columns: Columns) -> list[Chart]:
    """Return charts of what one pass over a text shows, with a curve for every column."""
    curves = partial(_curves, columns)
    return [
        spectrum_chart(columns),
        cosine_chart(columns),
        variance_chart(columns),
        curves(
            ("echo_state", "distances_by_step"),
            key="echo",
            title="Echo of the start state",
            caption="Distance left between two start states that read the same text. It must fall: "
            "a flat line is chaos.",
            x_label="tokens read",
            y_label="share of the first distance",
            log_y=True,
        ),
        _sweeps(columns),
        curves(
            ("repeat_drift", "by_repeat"),
            key="repeat",
            title="Drift when a passage is repeated",
            caption="How far the contexts of reading n + 1 are from those of reading n, the state "
            "carried over. The fixed-point property is that this goes to zero.",
            x_label="readings",
            y_label="relative distance",
            first=1,
            log_y=True,
            markers=True,
        ),
        curves(
            ("token_memory", "by_lag"),
            key="memory",
            title="Tokens read back from the context",
            caption="What a linear probe recovers of the token so many steps back: 1 is all of it, "
            "0 no more than guessing by frequency. What the last token tells of others counts in.",
            x_label="steps back",
            y_label="tokens remembered",
            markers=True,
            until=0.002,
        ),
        curves(
            ("contributions", "by_lag"),
            key="contributions",
            title="Contribution of a token to the state",
            caption="How far the state moves, relative to its norm, if the token so many steps "
            "back had been another one.",
            x_label="steps back",
            y_label="relative distance",
            log_y=True,
            markers=True,
        ),
        curves(
            ("lyapunov_spectrum", "exponents"),
            lambda exponents: [exponent["mean"] for exponent in exponents],
            key="exponents",
            title="Lyapunov spectrum",
            caption="Growth of a disturbance in its fastest direction, the next one and so on.",
            x_label="exponent",
            y_label="ln per token",
            first=1,
            markers=True,
        ),
        curves(
            ("along_text", "log_growth"),
            key="along-text",
            title="Growth of a disturbance along a text",
            caption="By each token of one passage; λ is the mean. Where it falls, the past is "
            "forgotten.",
            x_label="token",
            y_label="growth, ln",
        ),
    ]


def _curves(
    columns: Columns,
    path: Place,
    shown: Callable[[Any], Values] = list,
    *,
    first: int = 0,
    markers: bool = False,
    until: float | None = None,
    **words: Any,  # noqa: ANN401 - the fields of a chart
) -> Chart:
    """Return a curve of what every column has at `path`, as `shown`, numbered from `first`.

    It is cut where all stay below `until`.
    """
    found = {name: shown(look_up(of, path) or []) for name, (of, _) in columns.items()}
    length = max((len(values) for values in found.values()), default=0)
    if until is not None:
        numbered = (pair for values in found.values() for pair in enumerate(values))
        above = (i for i, value in numbered if value is not None and value > until)
        length = min(length, max(8, max(above, default=0) + 3))
    series = []
    for name, (_, role) in columns.items():
        values = found[name][:length]
        x = list(range(first, first + len(values)))
        series.append(Series(name, x, values, role, markers=markers))
    return Chart(series=series, **words)


def spectrum_chart(columns: Columns) -> Chart:
    """Return singular values of every column beside those of Gaussian samples."""
    curves = [(name, of["spectrum"], role) for name, (of, role) in columns.items()]
    largest = max(curve["singular_values"][0] for _, curve, _ in curves) or 1.0
    last, shown, _ = curves[-1]
    return Chart(
        key="spectrum",
        title="Singular values of the contexts",
        caption="The flatter, the more dimensions are in use. Grey and dashed: as many Gaussian "
        "samples, the ceiling of the effective rank.",
        x_label="index",
        y_label="singular value",
        series=[
            Series(
                f"Gaussian as {last}", shown["index"], shown["gaussian"], "reference", dash=DASHED
            ),
            *(Series(n, curve["index"], curve["singular_values"], r) for n, curve, r in curves),
        ],
        log_y=True,
        # LayerNorm leaves a direction empty: one value near zero must not flatten all others.
        floor=largest * SMALLEST_SHARE,
    )


def cosine_chart(columns: Columns) -> Chart:
    """Return histogram of the cosines of random pairs, where there are any."""
    shares = {name: figures["cosine_histogram"] for name, (figures, _) in columns.items()}
    occupied = [i for bars in shares.values() for i, share in enumerate(bars) if share > 1e-3]
    bins = len(next(iter(shares.values())))
    low, high = max(0, min(occupied) - 2), min(bins, max(occupied) + 3)
    centres = [-1 + (2 * i + 1) / bins for i in range(low, high)]
    return Chart(
        key="cosine",
        title="Cosine of two random contexts",
        caption="Around 0, contexts are diverse; a peak near 1 is a global attractor: every "
        "context the same.",
        x_label="cosine",
        counts=False,
        y_label="share of pairs",
        series=[
            Series(name, centres, shares[name][low:high], role)
            for name, (_, role) in columns.items()
        ],
    )


def variance_chart(columns: Columns) -> Chart:
    """Return variance of every dimension, sorted."""
    return _curves(
        columns,
        ("dimension_variance",),
        partial(sorted, reverse=True),
        key="variance",
        title="Variance of every dimension",
        caption="Sorted, largest first. A tail at zero is dimensions that say the same in every "
        "context.",
        x_label="dimension, by variance",
        y_label="variance",
        first=1,
    )


def _sweeps(columns: Columns) -> Chart:
    chart = _curves(
        columns,
        ("sweeps", "error_by_sweep"),
        key="sweeps",
        title="Error after sweeps over all tokens at once",
        caption="Typical token, relative to its exact context. Grey and dashed: what the Lyapunov "
        "exponent predicts.",
        x_label="sweeps",
        y_label="relative error",
        log_y=True,
        floor=SMALLEST_ERROR,
    )
    # The most important column is the last; what λ predicts of it lies over it.
    name, (figures, _) = list(columns.items())[-1]
    exponent = look_up(figures, ("lyapunov_exponent", "mean"))
    if exponent is None or exponent >= 0:
        return chart
    steps = range(min(len(chart.series[-1].y), int(math.log(SMALLEST_ERROR) / exponent) + 1))
    predicted = [math.exp(exponent * step) for step in steps]
    added = Series(f"exp(λk) of {name}", list(steps), predicted, "reference", dash=DASHED)
    return replace(chart, series=[*chart.series, added])


def history_charts(history: Sequence[Figures]) -> list[Chart]:
    """Return what Phase 1 wrote down after every iteration: losses, gradients, convergence."""
    x = list(range(1, len(history) + 1))

    def curve(label: str, group: str, name: str, role: str, **look: Any) -> Series:  # noqa: ANN401
        return Series(label, x, [look_up(entry, (group, name)) for entry in history], role, **look)

    losses, gradients = [], []
    for name, role in zip(names_in(history, "sweep_terms"), ROLES, strict=False):
        losses.append(curve(f"{name}, validation", "validation_terms", name, role, dash=DASHED))
        losses.append(curve(f"{name}, train", "sweep_terms", name, role))
        are_few = len(x) < MOST_MARKERS
        gradients.append(curve(name, "gradient_norms", name, role, markers=are_few))
    shares = [
        curve(f"{label}, {split}", group, split, split, dash=dash)
        for group, label, dash in (
            ("effective_rank_ratio", "ER/D", DASHED),
            ("converged_ratio", "converged", ()),
        )
        for split in ("train", "validation")
    ]
    chart = partial(Chart, x_label="iteration")
    return [
        chart(
            key="loss",
            title="Loss terms of Phase 1",
            caption="Each term as it was reported, before weighting. Dashed: on validation text.",
            y_label="loss",
            series=[series for series in losses if series.known],
            log_y=not any(y < 0 for series in losses for y in series.known),
        ),
        chart(
            key="gradient",
            title="Gradient norm of each term",
            caption="A term whose gradient is zero trains nothing, however its loss falls.",
            y_label="gradient norm",
            series=[series for series in gradients if series.known],
            log_y=True,
            floor=1e-9,
        ),
        chart(
            key="convergence",
            title="Converged tokens and effective rank",
            caption="Solid: share of tokens whose context does not depend on the start. Dashed: "
            "effective rank over dimensions.",
            y_label="share",
            series=shares,
        ),
    ]
