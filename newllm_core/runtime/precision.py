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


# Narrower contexts than this gain nothing: their products take less time than calling them does.
NARROWEST_CONTEXT = 192
# In /proc/cpuinfo: tiles (8 x float32 and more), and dot products of pairs (2 x).
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or as they are where that is more precise already.

    Squares summed over a batch need more than the 8 bits of bfloat16.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def uses_bfloat16(config: RunConfig, device: torch.device) -> bool:
    """Whether matrix products of training are made in bfloat16, if they are large enough."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return has_bfloat16_units(device)


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether bfloat16 products are much faster than float32.

    They are with AMX, with AVX512_BF16, and with tensor cores since Ampere.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:  # not Linux: no way to ask, so nothing is risked
        return False
    return not BFLOAT16_FLAGS.isdisjoint(info.split())


@contextmanager
def matrix_precision(
    model: "LanguageModel", config: RunConfig, device: torch.device
) -> Iterator[None]:
    """Let matrix products round their inputs to bfloat16, if that is configured.

    `auto` does where the hardware has units for it and contexts are at least 192 wide.

    Sums, statistics, losses, optimizer state, parameters and final contexts stay float32. On a
    processor the blocks of the default update keep bfloat16 between their products as well;
    everything else converts inside each product.
    """
    before = torch.get_float32_matmul_precision()
    narrow = uses_bfloat16(config, device)
    if config.precision == "auto" and model.context_dim < NARROWEST_CONTEXT:
        narrow = False
    torch.set_float32_matmul_precision("medium" if narrow else "highest")
    if narrow and device.type == "cpu" and all(layer.reads_narrow for layer in model.layers()):
        model.compute_dtype = torch.bfloat16
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        model.compute_dtype = None
