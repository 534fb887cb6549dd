"""How many processor threads are worth it for matrices of a size."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from newllm_core.model.language_model import LanguageModel

# Multiplications per matrix product below which threads cost more than they save, and far more if
# something else wants the processor: they wait for each other after every product.
SMALLEST_PRODUCT = 2**25


@contextmanager
def worthwhile_threads(model: LanguageModel, num_rows: int) -> Iterator[None]:
    """One thread while steps of `num_rows` rows of this model are small products."""
    product = num_rows * max(p.numel() for p in model.blocks.parameters())
    before = torch.get_num_threads()
    if product >= SMALLEST_PRODUCT or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
