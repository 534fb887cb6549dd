"""How many processor threads are worth it for matrices of a size."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import one_thread

# Multiplications per matrix product below which threads cost more than they save, and far more if
# something else wants the processor: they wait for each other after every product.
SMALLEST_PRODUCT = 2**25


@contextmanager
def worthwhile_threads(model: LanguageModel, num_rows: int) -> Iterator[None]:
    """One thread while steps of `num_rows` rows of this model are small products."""
    product = num_rows * max(p.numel() for p in model.blocks.parameters())
    with nullcontext() if product >= SMALLEST_PRODUCT else one_thread():
        yield
