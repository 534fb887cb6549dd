"""Which numbers are narrow, and where they must not be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from newllm_core.config import RunConfig

if TYPE_CHECKING:
    from newllm_core.model.language_model import LanguageModel


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or as they are where that is more precise already.

    Squares summed over a batch need more than the 8 bits of bfloat16.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def uses_bfloat16(config: RunConfig, device: torch.device) -> bool:
    """Whether matrix products of training are made in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return has_matrix_units(device)


def has_matrix_units(device: torch.device) -> bool:
    """Whether bfloat16 products are much faster than float32: AMX, or tensor cores since Ampere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:  # not Linux: no way to ask, so nothing is risked
        return False


@contextmanager
def matrix_precision(
    model: "LanguageModel", config: RunConfig, device: torch.device
) -> Iterator[None]:
    """Let matrix products round their inputs to bfloat16, if that is configured.

    Sums, statistics, losses, optimizer state, parameters and final contexts stay float32. On a
    processor the blocks of the default update keep bfloat16 between their products as well;
    everything else converts inside each product.
    """
    before = torch.get_float32_matmul_precision()
    narrow = uses_bfloat16(config, device)
    torch.set_float32_matmul_precision("medium" if narrow else "highest")
    if narrow and device.type == "cpu" and all(layer.is_fused for layer in model.layers()):
        model.compute_dtype = torch.bfloat16
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        model.compute_dtype = None
