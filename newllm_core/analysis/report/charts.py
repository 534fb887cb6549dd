"""The charts of an analysis, made from its JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from newllm_core.analysis.differences import look_up
from newllm_core.analysis.report.chart import Chart, Series
from newllm_core.analysis.report.history_charts import history_charts

Figures = Mapping[str, Any]

SMALLEST_SHARE = 0.01
SMALLEST_ERROR = 1e-6


def analysis_charts(report: Figures) -> list[Chart]:
    """Return every chart that this report has data for."""
    history = report["convergence"]["history"] if "convergence" in report else []
    columns = columns_of(report)
    charts = [*history_charts(history), *split_charts(columns)]
    return [chart for chart in charts if not chart.empty]


def columns_of(report: Figures) -> dict[str, tuple[Figures, str]]:
    """Name to figures and role of every curve; the random control first, to lie below."""
    last = "validation" if report["validation"] else "train"
    control = (report.get("random_control") or {}).get(last)
    columns = {"untrained": (control, "control")} if control else {}
    splits = {split: (report[split], split) for split in ("train", "validation")}
    return columns | {name: of for name, of in splits.items() if of[0] is not None}


def split_charts(columns: Mapping[str, tuple[Figures, str]]) -> list[Chart]:
    """Return charts of what one pass over a text shows, with a curve for every column."""
    return [
        spectrum_chart(columns),
        cosine_chart(columns),
        variance_chart(columns),
        _curves(
            columns,
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
        _curves(
            columns,
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
        _curves(
            columns,
            ("token_memory", "by_lag"),
            key="memory",
            title="Tokens read back from the context",
            caption="What a linear probe recovers of the token so many steps back: 1 is all of it, "
            "0 no more than guessing by frequency.",
            x_label="steps back",
            y_label="tokens remembered",
            markers=True,
            until=0.002,
        ),
        _curves(
            columns,
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
        _spectrum_of_exponents(columns),
        _curves(
            columns,
            ("along_text", "log_growth"),
            key="along-text",
            title="Growth of a disturbance along a text",
            caption="By each token of one passage; λ is the mean. Where it falls, the past is "
            "forgotten.",
            x_label="token",
            y_label="growth, ln",
        ),
    ]


def _spectrum_of_exponents(columns: Mapping[str, tuple[Figures, str]]) -> Chart:
    series = []
    for name, (figures, role) in columns.items():
        exponents = look_up(figures, ("lyapunov_spectrum", "exponents")) or []
        means = [exponent["mean"] for exponent in exponents]
        series.append(Series(name, list(range(1, len(means) + 1)), means, role, markers=True))
    return Chart(
        key="exponents",
        title="Lyapunov spectrum",
        caption="Growth of a disturbance in its fastest direction, the next one and so on.",
        x_label="exponent",
        y_label="ln per token",
        series=series,
    )


def _curves(
    columns: Mapping[str, tuple[Figures, str]],
    path: tuple[str, ...],
    *,
    first: int = 0,
    markers: bool = False,
    until: float | None = None,
    **words: Any,  # noqa: ANN401 - the fields of a chart
) -> Chart:
    """Return one curve of every column, numbered from `first`; cut where all stay below `until`."""
    found = {name: look_up(figures, path) or [] for name, (figures, _) in columns.items()}
    length = max((len(values) for values in found.values()), default=0)
    if until is not None:
        ends = [_last_above(values, until) for values in found.values()]
        length = min(length, max(8, *(end + 3 for end in ends))) if ends else length
    series = [
        Series(
            name,
            list(range(first, first + len(found[name][:length]))),
            found[name][:length],
            role,
            markers=markers,
        )
        for name, (_, role) in columns.items()
    ]
    return Chart(series=series, **words)


def _last_above(values: Sequence[float | None], limit: float) -> int:
    return max(
        (i for i, value in enumerate(values) if value is not None and value > limit), default=0
    )


def spectrum_chart(columns: Mapping[str, tuple[Figures, str]]) -> Chart:
    """Return singular values of every column beside those of Gaussian samples."""
    series: list[Series] = []
    largest = 1.0
    for name, (figures, role) in columns.items():
        curve = figures["spectrum"]
        largest = max(largest, curve["singular_values"][0])
        if not series:
            series.append(
                Series("Gaussian", curve["index"], curve["gaussian"], "reference", dashed=True)
            )
        series.append(Series(name, curve["index"], curve["singular_values"], role))
    return Chart(
        key="spectrum",
        title="Singular values of the contexts",
        caption="The flatter, the more dimensions are in use. Dashed: as many Gaussian samples, "
        "the ceiling of the effective rank.",
        x_label="index",
        y_label="singular value",
        series=series,
        log_y=True,
        # LayerNorm leaves a direction empty: one value near zero must not flatten all others.
        floor=largest * SMALLEST_SHARE,
    )


def cosine_chart(columns: Mapping[str, tuple[Figures, str]]) -> Chart:
    """Return histogram of the cosines of random pairs, where there are any."""
    series = []
    occupied = []
    for figures, _ in columns.values():
        shares = figures["cosine_histogram"]
        occupied += [i for i, share in enumerate(shares) if share > 1e-3]
    bins = len(next(iter(columns.values()))[0]["cosine_histogram"])
    low, high = max(0, min(occupied) - 2), min(bins, max(occupied) + 3)
    centres = [-1 + (2 * i + 1) / bins for i in range(bins)]
    for name, (figures, role) in columns.items():
        shares = figures["cosine_histogram"]
        series.append(Series(name, centres[low:high], shares[low:high], role))
    return Chart(
        key="cosine",
        title="Cosine of two random contexts",
        caption="Around 0, contexts are diverse; a peak near 1 is a global attractor: every "
        "context the same.",
        x_label="cosine",
        counts=False,
        y_label="share of pairs",
        series=series,
    )


def variance_chart(columns: Mapping[str, tuple[Figures, str]]) -> Chart:
    """Return variance of every dimension, sorted."""
    series = []
    for name, (figures, role) in columns.items():
        ordered = sorted(figures["dimension_variance"], reverse=True)
        series.append(Series(name, list(range(1, len(ordered) + 1)), ordered, role))
    return Chart(
        key="variance",
        title="Variance of every dimension",
        caption="Sorted, largest first. A tail at zero is dimensions that say the same in every "
        "context.",
        x_label="dimension, by variance",
        y_label="variance",
        series=series,
    )


def _sweeps(columns: Mapping[str, tuple[Figures, str]]) -> Chart:
    series = []
    for name, (figures, role) in columns.items():
        errors = look_up(figures, ("sweeps", "error_by_sweep")) or []
        series.append(Series(name, list(range(len(errors))), errors, role))
    # The most important column is the last; what λ predicts of it lies over it.
    exponent = look_up(figures, ("lyapunov_exponent", "mean"))
    if exponent is not None and exponent < 0:
        steps = min(len(errors), int(math.log(SMALLEST_ERROR) / exponent) + 1)
        predicted = [math.exp(exponent * step) for step in range(steps)]
        series.append(
            Series(f"exp(λk) of {name}", list(range(steps)), predicted, "reference", dashed=True)
        )
    return Chart(
        key="sweeps",
        title="Error after sweeps over all tokens at once",
        caption="Typical token, relative to its exact context. Dashed: what the Lyapunov exponent "
        "predicts.",
        x_label="sweeps",
        y_label="relative error",
        series=series,
        log_y=True,
        floor=SMALLEST_ERROR,
    )
