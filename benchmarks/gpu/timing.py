"""Times, sizes and rows of the table."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Row = dict[str, Any]
# For one figure: so many rounds in so many seconds.
ROUNDS, SECONDS = 5, 1.0
PEAK_WIDTH = 8192


@dataclass(frozen=True)
class Place:
    """Where to measure, and how much.

    Attributes:
        device: the GPU, or a processor to try the code on.
        quick: sizes and times that a processor can bear; the figures mean nothing.
    """

    device: torch.device
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """Choose a size."""
        return quick if self.quick else full

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds_of(self, action: Callable[[], object]) -> float:
        """Return the median seconds of a call; many are made between two waits."""
        for _ in range(0 if self.quick else 3):  # first calls allocate and choose kernels
            action()
        self.wait()
        seconds = 0.0 if self.quick else SECONDS
        begun = time.perf_counter()
        action()
        self.wait()
        count = max(1, int(seconds / ROUNDS / (time.perf_counter() - begun)))
        taken = []
        for _ in range(self.size(ROUNDS, 1)):
            begun = time.perf_counter()
            for _ in range(count):
                action()
            self.wait()
            taken.append((time.perf_counter() - begun) / count)
        return statistics.median(taken)

    def begin_memory(self) -> None:
        """Forget the peak of memory, and what was there before."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> float:
        """Return the peak of memory since `begin_memory`, in MiB."""
        on_gpu = self.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if on_gpu else 0.0

    def peak(self) -> float:
        """Return TFLOP/s of a large product in bfloat16."""
        width = self.size(PEAK_WIDTH, 64)
        left, right = (
            torch.randn(width, width, device=self.device, dtype=torch.bfloat16) for _ in range(2)
        )
        return 2 * width**3 / self.seconds_of(lambda: left @ right) / 1e12


def row(case: str, figure: float, unit: str, bar: float | None = None, **more: Any) -> Row:  # noqa: ANN401
    """Make a row; `bar` is what the figure is to reach, or for an error to stay below."""
    return {"case": case, "figure": figure, "unit": unit, "bar": bar, **more}
