"""How many processor threads are worth it for matrices of a size."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from newllm_core.analysis.recurrence import Recurrence
from newllm_core.runtime.device import one_thread

# Multiplications per matrix product below which threads cost more than they save, and far more if
# something else wants the processor: they wait for each other after every product.
SMALLEST_PRODUCT = 2**25


@contextmanager
def worthwhile_threads(recurrence: Recurrence, num_rows: int) -> Iterator[None]:
    """One thread while steps of `num_rows` rows of a recurrence are small products."""
    product = num_rows * recurrence.largest_weight
    with nullcontext() if product >= SMALLEST_PRODUCT else one_thread():
        yield
