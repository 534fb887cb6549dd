"""What a run of Phase 1 reports."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Phase1Result:
    """What happened.

    Attributes:
        history: one mapping per iteration.
        vacuous_terms: loss terms that never had a gradient.
        weight_change: distance of the weights from their initial values, relative to those.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    vacuous_terms: list[str] = field(default_factory=list)
    weight_change: float = 0.0
