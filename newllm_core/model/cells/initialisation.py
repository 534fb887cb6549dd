"""How initial matrices are drawn."""

from collections.abc import Sequence
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


@torch.no_grad()
def draw(
    rows: int, columns: Sequence[int], scheme: str, std: float, generator: torch.Generator
) -> Tensor:
    """Draw a matrix [rows, sum(columns)], the parts of its columns one after the other.

    Args:
        rows: outputs m.
        columns: inputs, in parts; n is their sum.
        scheme: one of `SCHEMES`; only "normal" uses `std`.
        std: of the entries.
        generator: the source of random numbers.
    """
    inputs = sum(columns)
    if scheme == "orthogonal":
        return nn.init.orthogonal_(torch.empty(rows, inputs), generator=generator)
    std = {"normal": std, "xavier": (2 / (rows + inputs)) ** 0.5, "he": (2 / inputs) ** 0.5}[scheme]
    parts = [torch.empty(rows, part).normal_(0, std, generator=generator) for part in columns]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def draw_all(module: nn.Module, scheme: str, std: float, generator: torch.Generator) -> None:
    """Draw every matrix of `module` in the order in which they were made; vectors become 0."""
    for parameter in module.parameters():
        if parameter.ndim == 2:
            rows, inputs = parameter.shape
            parameter.copy_(draw(rows, [inputs], scheme, std, generator))
        else:
            parameter.zero_()
