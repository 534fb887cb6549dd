"""What Phase 1 wrote down while it trained, as charts."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from newllm_core.analysis.report.chart import Chart, Series, Values

Figures = Mapping[str, Any]
ROLES = "abcdefgh"
# More points than that are a line, not dots.
MOST_MARKERS = 40


def history_charts(history: Sequence[Figures]) -> list[Chart]:
    """Return loss terms, their gradient norms, and what was measured after every iteration."""
    x = list(range(1, len(history) + 1))
    markers = len(x) < MOST_MARKERS
    names = list(
        dict.fromkeys(name for entry in history for name in entry.get("sweep_terms") or {})
    )
    losses, gradients = [], []
    for name, role in zip(names, ROLES, strict=False):
        for split, group in (("validation", "validation_terms"), ("train", "sweep_terms")):
            values = _of(history, group, name)
            if _known(values):
                dashed = split == "validation"
                losses.append(Series(f"{name}, {split}", x, values, role, dashed=dashed))
        values = _of(history, "gradient_norms", name)
        if _known(values):
            gradients.append(Series(name, x, values, role, markers=markers))
    shares = [
        Series(f"{label}, {split}", x, _of(history, group, split), split, dashed=dashed)
        for group, label, dashed in (
            ("effective_rank_ratio", "ER/D", True),
            ("converged_ratio", "converged", False),
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
            series=losses,
            log_y=True,
        ),
        chart(
            key="gradient",
            title="Gradient norm of each term",
            caption="A term whose gradient is zero trains nothing, however its loss falls.",
            y_label="gradient norm",
            series=gradients,
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


def _of(history: Sequence[Figures], group: str, name: str) -> Values:
    values = []
    for entry in history:
        found = entry.get(group)
        value = found.get(name) if isinstance(found, Mapping) else found
        values.append(float(value) if isinstance(value, int | float) else None)
    return values


def _known(values: Values) -> bool:
    return any(value is not None for value in values)
