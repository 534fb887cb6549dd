"""Contexts that are kept for the time of a run: in a file, or where a GPU has room for them.

Shapes: N rows (tokens), K heads, C context_dim.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from newllm_core.errors import InputError, reason
from newllm_core.runtime.device import to_device

GIBIBYTE = 2**30
# Of the memory that is free on a GPU.
SHARE_OF_GPU = 0.5


class ContextStore:
    """Rows [K, C] in float32, to be read on `device`.

    A GPU keeps them in its memory if it has room: reading a file takes longer than its steps.
    Otherwise they are in a temporary file that has no name and goes away by itself. It is not
    mapped: mapped pages count as memory, which would seem to grow with the text.

    Raises:
        InputError: the disk has no room for it.
    """

    def __init__(
        self, folder: Path, num_rows: int, shape: tuple[int, int], device: torch.device
    ) -> None:
        self.shape = shape
        self.device = device
        self.row_bytes = 4 * shape[0] * shape[1]
        self._folder = folder
        needed = num_rows * self.row_bytes
        self._rows_NKC: Tensor | None = None
        if needed < SHARE_OF_GPU * free_on_gpu(device):
            self._rows_NKC = torch.empty(num_rows, *shape, device=device)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if needed > free:
                raise InputError(
                    f"the contexts of {num_rows:,} tokens need {needed / GIBIBYTE:.1f} GiB in "
                    f"{folder}, which has {free / GIBIBYTE:.1f} GiB left: pass --max-tokens, or "
                    "fine-tune without --freeze-context"
                )
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, positions_N: np.ndarray, rows_NKC: Tensor) -> None:
        """Store rows at their positions; neighbours in a row are written together.

        Raises:
            InputError: the disk is full.
        """
        if self._rows_NKC is not None:
            places_N = to_device(torch.from_numpy(positions_N), self.device)
            self._rows_NKC.index_copy_(0, places_N, rows_NKC.to(self._rows_NKC))
            return
        breaks = np.flatnonzero(np.diff(positions_N) != 1) + 1
        for positions, rows in zip(
            np.split(positions_N, breaks),
            np.split(rows_NKC.float().cpu().numpy(), breaks),
            strict=True,
        ):
            left = memoryview(rows.tobytes())
            try:
                self._file.seek(int(positions[0]) * self.row_bytes)
                while left:  # of a disk that fills up the first part is written
                    left = left[self._file.write(left) :]
            except OSError as error:
                raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"cannot keep contexts in {self._folder}: {reason(error)}")

    def read(self, first: int, count: int) -> Tensor:
        """Return `count` rows [N, K, C] from `first` on."""
        if self._rows_NKC is not None:
            return self._rows_NKC[first : first + count]
        self._file.seek(first * self.row_bytes)
        values = np.fromfile(self._file, np.float32, count * self.row_bytes // 4)
        return to_device(torch.from_numpy(values.reshape(count, *self.shape)), self.device)

    def __enter__(self) -> "ContextStore":
        return self

    def __exit__(self, *error: object) -> None:
        if self._rows_NKC is None:
            self._file.close()
        self._rows_NKC = None


def free_on_gpu(device: torch.device) -> int:
    """Return how many bytes are free on a CUDA device; of another device none are counted."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
