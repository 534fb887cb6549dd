"""The guard against training that trains nothing: gradient norms of every term, weights moved."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from newllm_core.parallel import collectives
from newllm_core.parallel.collectives import full_tensor

# A gradient that only rounding made differs from zero by less than this.
VACUOUS_NORM = 1e-12


class VacuityGuard:
    """Follows how strongly each loss term pulls, and how far the weights went."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._initial = {p: p.detach().clone() for p in parameters if p.requires_grad}
        self._parameters = list(self._initial)
        self._largest: dict[str, Tensor] = {}

    @property
    def largest(self) -> dict[str, float]:
        """The largest gradient norm seen of each term."""
        return {name: norm.item() for name, norm in self._largest.items()}

    @largest.setter
    def largest(self, norms: Mapping[str, float]) -> None:
        self._largest = {n: torch.tensor(norm, dtype=torch.float64) for n, norm in norms.items()}

    def gradient_norms(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The norm of each weighted term's gradient. Keeps the graph for the step that follows."""
        norms = {}
        for name, term in terms.items():
            norm = norms[name] = self.norm_of(term) if term.requires_grad else term.new_zeros(())
            # Of a norm that is not a number nothing is remembered.
            before = self._largest.get(name, torch.zeros_like(norm)).to(norm)
            self._largest[name] = torch.fmax(norm, before)
        return norms

    def vacuous_terms(self) -> list[str]:
        """Return terms whose gradient was never anything but zero."""
        return [name for name, norm in self.largest.items() if norm <= VACUOUS_NORM]

    def weight_change(self, chosen: Iterable[nn.Parameter]) -> float:
        """Return the distance of some weights from where they began, relative to their norm there.

        Those of the blocks are asked for: an objective's may move while blocks do not.
        """
        pairs = [(p.detach(), self._initial[p]) for p in chosen if p in self._initial]
        moved = sum(_energy(now - start) for now, start in pairs)
        norm = sum(_energy(start) for _, start in pairs)
        return (moved / max(norm, 1e-30)) ** 0.5

    def not_finite(self, terms: dict[str, Tensor]) -> list[str]:
        """Name the terms whose gradient is not finite; all, where only their sum is not."""
        bad = [name for name, term in terms.items() if not math.isfinite(self.norm_of(term).item())]
        return bad or list(terms)

    def norm_of(self, term: Tensor) -> Tensor:
        """Return the norm of a term's gradient, whose graph is kept."""
        for parameter in self._parameters:
            parameter.grad = None
        term.backward(retain_graph=True)
        collectives.average_gradients(self._parameters)
        norm = collectives.gradient_norm(self._parameters)
        for parameter in self._parameters:
            parameter.grad = None
        return norm


def _energy(values: Tensor) -> float:
    return full_tensor(values.square().sum()).item()
