"""The ways a peer may compute: the most exact at equal tokens, at equal time the fastest.

All but one end in newllm's own cross-entropy: rows differ by their models, not by what surrounds
them. What users of torch have without it is `TORCH`.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from newllm_core.config import RunConfig
from newllm_core.runtime.precision import float32_products, uses_bfloat16

FLOAT32 = "float32"
# float32 tensors, rounded inside each product.
ROUNDED = "bfloat16"
# bfloat16 tensors between products too, as newllm's own model has them.
AUTOCAST = "autocast"
# The same, and torch's cross-entropy.
TORCH = "torch"


def ways(config: RunConfig, device: torch.device) -> tuple[str, ...]:
    """List the ways that `--precision` allows, the most exact first."""
    if not uses_bfloat16(config, device):
        return (FLOAT32,)
    return (FLOAT32, ROUNDED, AUTOCAST, TORCH)


def products(way: str) -> AbstractContextManager[None]:
    """Inside, float32 products are rounded as `way` says."""
    return float32_products("highest" if way == FLOAT32 else "medium")


def of_body(way: str, device: torch.device) -> "nullcontext[None] | torch.autocast":
    """The context for a peer's body and its head."""
    if way not in (AUTOCAST, TORCH):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
