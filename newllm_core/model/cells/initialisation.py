"""How initial matrices are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from newllm_core.config.option import option

SCHEMES = ("normal", "xavier", "he", "orthogonal")


def init_option() -> Any:  # noqa: ANN401 - a field of a dataclass
    """Make the field `init` of a cell's options."""
    return option(
        "normal",
        "Initial matrices [m, n]: normal N(0, init_std²), xavier N(0, 2/(m+n)) (Glorot & Bengio "
        "2010), he N(0, 2/n) (He et al. 2015), orthogonal rows or columns (Saxe et al. 2014).",
        choices=SCHEMES,
    )


@dataclass(frozen=True)
class InitOptions:
    """Options of a cell that has no others."""

    init: str = init_option()


@torch.no_grad()
def draw(
    rows: int, columns: Sequence[int], scheme: str, std: float, generator: torch.Generator
) -> Tensor:
    """Draw a matrix [rows, sum(columns)], the parts of its columns one after the other.

    `scheme` is one of `SCHEMES`, of which only "normal" uses `std`.
    """
    inputs = sum(columns)
    if scheme == "orthogonal":
        return nn.init.orthogonal_(torch.empty(rows, inputs), generator=generator)
    std = {"normal": std, "xavier": (2 / (rows + inputs)) ** 0.5, "he": (2 / inputs) ** 0.5}[scheme]
    parts = [torch.empty(rows, part).normal_(0, std, generator=generator) for part in columns]
    return torch.cat(parts, dim=1)
