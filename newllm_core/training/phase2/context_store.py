"""A file of contexts on disk, for the time of a run.

Shapes: N rows (tokens), K heads, C context_dim.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from newllm_core.errors import InputError, reason

GIBIBYTE = 2**30


class ContextStore:
    """Rows [K, C] in float32 in a temporary file that has no name and goes away by itself.

    It is not mapped: mapped pages count as memory, which would seem to grow with the text.

    Raises:
        InputError: the disk has no room for it.
    """

    def __init__(self, folder: Path, num_rows: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.row_bytes = 4 * shape[0] * shape[1]
        self._folder = folder
        needed = num_rows * self.row_bytes
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

    def write(self, positions_N: np.ndarray, rows_NKC: np.ndarray) -> None:
        """Store rows at their positions; neighbours in a row are written together.

        Raises:
            InputError: the disk is full.
        """
        breaks = np.flatnonzero(np.diff(positions_N) != 1) + 1
        for positions, rows in zip(
            np.split(positions_N, breaks), np.split(rows_NKC, breaks), strict=True
        ):
            left = memoryview(rows.astype(np.float32).tobytes())
            try:
                self._file.seek(int(positions[0]) * self.row_bytes)
                while left:  # of a disk that fills up the first part is written
                    left = left[self._file.write(left) :]
            except OSError as error:
                raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"cannot keep contexts in {self._folder}: {reason(error)}")

    def read(self, first: int, count: int) -> np.ndarray:
        """Return `count` rows [N, K, C] from `first` on."""
        self._file.seek(first * self.row_bytes)
        values = np.fromfile(self._file, np.float32, count * self.row_bytes // 4)
        return values.reshape(count, *self.shape)

    def __enter__(self) -> "ContextStore":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
