"""Sections 2 to 5 of the analysis on any matrix in a file, read a few rows at a time.

The result has no identity or token figures: a file says nothing about the order of its rows. Of a
tensor of one dimension, such as the weights of a LayerNorm, there are neither ranks nor pairs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newllm_core.analysis.rank import largest, projections
from newllm_core.analysis.rows import CHUNK_ELEMENTS, Rows
from newllm_core.analysis.sections import distribution, matrix_sections
from newllm_core.analysis.summary import summary
from newllm_core.config import AnalysisConfig
from newllm_core.errors import InputError, reason
from newllm_core.files.npy_files import open_array
from newllm_core.files.tensor_files import open_tensors
from newllm_core.runtime.progress import Progress, Silent

SCHEMA = 1
ROWS_PER_VECTOR = 6
# A square matrix of this side, of eight bytes each, is held in memory.
WIDEST_SIDE = 16_384
# A vector is held in memory, eight bytes a value.
LONGEST_VECTOR = 1 << 26
HISTOGRAM_BINS = 40
# Sums of squares of larger values overflow in float64, and those of its inverse vanish.
LARGEST_VALUE = 1e150


def analyze_matrix(
    path: Path,
    tensor_name: str | None = None,
    *,
    config: AnalysisConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> dict[str, Any]:
    """Return figures of a matrix [N, D] or vector [N] in a `.safetensors` or `.npy` file.

    Memory holds `chunk_elements` entries and a square matrix of the smaller side, not the file.
    Without a `tensor_name` the file has one matrix only.

    Raises:
        InputError: the file or tensor is missing, unreadable, no matrix of at least two rows, or
            holds values that are not finite.
    """
    config, progress = config or AnalysisConfig(), progress or Silent()
    with _open(path, tensor_name) as (rows, name, is_vector):
        count, width = rows.shape
        label = f"{name or path.name} [{count:,}{'' if is_vector else f' x {width:,}'}]"
        place = f"{label} of {path}" if name else str(path)
        if is_vector:
            progress.message(f"analysing {label}")
            _check_values(rows, place)
            figures = _vector_figures(torch.cat(list(rows.chunks()))[:, 0])
        else:
            progress.message(f"analysing {label}: {count * width:,} values")
            with progress.task(f"reading {label}", None, "rows") as task:
                rows = replace(rows, chunk_elements=chunk_elements, on_read=task.advance)
                _check_values(rows, place)
                figures = _matrix_figures(rows, config, seed)
    return {"schema": SCHEMA, "file": str(path), "tensor": name, **figures}


def examine_states(
    states: Tensor, *, config: AnalysisConfig | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return figures of states [N, D] alone, those that `analyze --tensor` has of a matrix.

    Raises:
        ValueError: it is no matrix.
        InputError: it has one row, or values that are not finite.
    """
    rows = Rows.of(states)
    _matrix_shape(list(rows.shape), "states")
    _check_values(rows, "states")
    return {"schema": SCHEMA, **_matrix_figures(rows, config or AnalysisConfig(), seed)}


def _matrix_figures(rows: Rows, config: AnalysisConfig, seed: int) -> dict[str, Any]:
    figures, vectors_DK = matrix_sections(rows, config, seed=seed)
    projected_NK = projections(rows, vectors_DK)
    ids_N = torch.arange(rows.num_rows, device=projected_NK.device)
    loadings = largest(ids_N, projected_NK, ROWS_PER_VECTOR)
    vectors = [
        {"singular_value": value, "rows": [{"id": row, "loading": x} for row, x in of_vector]}
        for value, of_vector in zip(figures["top_singular_values"], loadings, strict=True)
    ]
    return {"shape": list(rows.shape), **figures, "singular_vectors": vectors}


def _vector_figures(values_N: Tensor) -> dict[str, Any]:
    low, high = float(values_N.min()), float(values_N.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(values_N, HISTOGRAM_BINS, low, high)  # numpy refuses values too close
    width = (high - low) / HISTOGRAM_BINS
    return {
        "shape": [len(values_N)],
        "num_values": len(values_N),
        "euclidean_norm": float(values_N.norm()),
        "values": summary(values_N),
        "sparsity": distribution(values_N[:, None])["sparsity"],
        "histogram": {
            "centres": [low + (bin + 0.5) * width for bin in range(HISTOGRAM_BINS)],
            "shares": (counts / len(values_N)).tolist(),
        },
    }


@contextmanager
def _open(path: Path, tensor_name: str | None) -> Iterator[tuple[Rows, str | None, bool]]:
    """Open a matrix; yield it, its name and whether it is a vector as a column."""
    if path.suffix == ".npy":
        if tensor_name is not None:
            raise InputError(f"{path} holds one array without a name: leave out --tensor")
        array = open_array(path)
        rows, columns = _matrix_shape(list(array.shape), str(path))
        source = _NpySource(array.reshape(rows, columns))
        yield Rows(source, rows, columns, dtype=source.dtype), None, array.ndim == 1
        return
    with open_tensors(path) as file:
        shapes = {n: file.get_slice(n).get_shape() for n in list(file.keys())}
        name = _choose(path, shapes, tensor_name)
        label = f"tensor {name!r} of {path}"
        rows, columns = _matrix_shape(shapes[name], label)
        is_vector = len(shapes[name]) == 1
        try:
            source = file.get_tensor(name)[:, None] if is_vector else file.get_slice(name)
            dtype = source[0:1, 0:1].dtype
        except (TypeError, AttributeError, ValueError) as error:  # types that torch lacks
            raise InputError(
                f"{label} has the type {file.get_slice(name).get_dtype()}: {reason(error)}"
            ) from error
        if dtype.is_complex:
            raise InputError(f"{label} has the type {dtype}, expected real numbers")
        yield Rows(source, rows, columns, dtype=dtype), name, is_vector


def _choose(path: Path, shapes: dict[str, list[int]], asked: str | None) -> str:
    if asked is not None and asked in shapes:
        return asked
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if asked is None and len(matrices) == 1:
        return matrices[0]
    problem = f"no tensor {asked!r} in {path}" if asked else f"which tensor of {path}? use --tensor"
    listed = ", ".join(matrices[:8]) + (", …" if len(matrices) > 8 else "")
    raise InputError(f"{problem} (matrices in it: {listed or 'none'})")


class _NpySource:
    """A memory-mapped array whose parts come as tensors of `dtype`."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        is_short = array.dtype.kind == "f" and array.itemsize <= 4
        self.dtype = torch.float32 if is_short else torch.float64

    def __getitem__(self, index: tuple[slice, slice]) -> Tensor:
        exact = "f4" if self.dtype == torch.float32 else "f8"
        return torch.from_numpy(np.array(self.array[index], dtype=exact))


def _matrix_shape(shape: list[int], label: str) -> tuple[int, int]:
    if len(shape) == 1 and 0 < shape[0] <= LONGEST_VECTOR:
        return shape[0], 1
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise InputError(
            f"{label} has shape {shape}: a matrix of at least two rows is needed, or a vector of "
            f"up to {LONGEST_VECTOR:,} values"
        )
    if min(shape) > WIDEST_SIDE:
        raise InputError(
            f"{label} has shape {shape}: its smaller side is more than {WIDEST_SIDE:,}, look at "
            "some of its rows instead"
        )
    return shape[0], shape[1]


def _check_values(rows: Rows, label: str) -> None:
    begin, largest = 0, 0.0
    for chunk in rows.chunks():
        bad = ~torch.isfinite(chunk).all(dim=1)
        if bool(bad.any()):
            row = begin + int(bad.nonzero()[0])
            raise InputError(f"{label} holds values that are not finite, first in row {row}")
        begin += len(chunk)
        largest = max(largest, float(chunk.abs().max()))
    if largest > LARGEST_VALUE or 0 < largest < 1 / LARGEST_VALUE:
        raise InputError(
            f"{label} holds values up to {largest:.0e}, whose squares no number can hold: divide "
            f"it by {largest:.0e} first"
        )
