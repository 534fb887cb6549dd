"""The ways a peer may compute: the most exact at equal tokens, at equal time the fastest.

All but one end in newllm's own cross-entropy: rows differ by their models, not by what surrounds
them. What users of torch have without it is `TORCH`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from newllm_core.config import RunConfig
from newllm_core.runtime.precision import uses_bfloat16

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


@contextmanager
def products(way: str) -> Iterator[None]:
    """Inside, float32 products are rounded as `way` says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if way == FLOAT32 else "medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def of_body(way: str, device: torch.device) -> "nullcontext[None] | torch.autocast":
    """The context for a peer's body and its head."""
    if way not in (AUTOCAST, TORCH):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
