"""Which terms Phase 2 may train beside token heads, as the config says."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from newllm_core.config import Config
from newllm_core.plugins.registry import OBJECTIVES, REGULARIZERS, Registry


class Term(NamedTuple):
    """An objective or a regularizer.

    Attributes:
        registry: of its kind.
        asked: the plugin that Phase 2 names, if any.
        weight: that Phase 2 is given, if any; 0 leaves the term out.
        of_phase1: the plugin that Phase 1 had.
        given: options, of which some may be those of Phase 1's plugin.
    """

    registry: Registry
    asked: str | None
    weight: float | None
    of_phase1: str
    given: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the plugin: Phase 1's unless another one is named."""
        return self.asked or self.of_phase1

    @property
    def is_wanted(self) -> bool:
        """Say whether it is trained: it is named, or has a weight."""
        return bool(self.asked) if self.weight is None else self.weight > 0

    def options(self) -> dict[str, Any]:
        """Choose its options from those given; what only Phase 1's plugin knows is left out."""
        if self.name == self.of_phase1 or not self.given:
            return dict(self.given)
        known, others = (
            {spec.name for spec in fields(self.registry.load(plugin).Options)}
            for plugin in (self.name, self.of_phase1)
        )
        return {k: value for k, value in self.given.items() if k in known or k not in others}


def terms_of(config: Config) -> tuple[Term, Term]:
    """Return the objective and the regularizer, wanted or not."""
    chosen, before = config.phase2, config.phase1
    objective = chosen.objective, chosen.objective_weight, before.objective, config.objective
    regularizer = chosen.reg, chosen.reg_weight, before.reg, config.regularizer
    return Term(OBJECTIVES, *objective), Term(REGULARIZERS, *regularizer)
