"""Which numbers are narrow, and where they must not be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.config import RunConfig

# Narrower contexts than this gain nothing on a processor: their products take less time than
# calling them does.
NARROWEST_CONTEXT = 192
# In /proc/cpuinfo: tiles (8 x float32 and more), and dot products of pairs (2 x).
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}


def at_least_float32(values: Tensor) -> Tensor:
    """Convert `values` to float32, or leave them where they are more precise already.

    Squares summed over a batch need more than the 8 bits of bfloat16.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def uses_bfloat16(config: RunConfig, device: torch.device) -> bool:
    """Say whether matrix products are made in bfloat16, if they are large enough.

    `auto` makes them where that is much faster: with AMX, with AVX512_BF16, and with tensor cores
    since Ampere.
    """
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:  # not Linux: no way to ask, so nothing is risked
        return False
    return not BFLOAT16_FLAGS.isdisjoint(info.split())


@contextmanager
def products_in(model: Any, config: RunConfig, device: torch.device) -> Iterator[None]:  # noqa: ANN401
    """Let a `LanguageModel` round the inputs of matrix products to bfloat16, if configured.

    `auto` does where the hardware has units for it, on a processor from contexts of 192 on.
    PyTorch's autocast does the rounding (`LanguageModel.narrow_products`). Sums, statistics,
    losses, optimizer state, parameters and contexts stay float32, so gradients need no scaling.
    Products that stay float32 on a GPU may be made in TF32 (`run.tf32`).
    """
    too_small = device.type == "cpu" and model.context_dim < NARROWEST_CONTEXT
    is_worth_it = config.precision != "auto" or not too_small
    narrow = is_worth_it and uses_bfloat16(config, device)
    before, model.product_dtype = model.product_dtype, torch.bfloat16 if narrow else None
    tf32, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, config.tf32
    try:
        yield
    finally:
        model.product_dtype = before
        torch.backends.cuda.matmul.allow_tf32 = tf32
