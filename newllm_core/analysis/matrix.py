"""Sections 2 to 5 of the analysis on any matrix in a file, read a few rows at a time.

The result has no identity or token figures: a file says nothing about the order of its rows. Of a
tensor of one dimension, such as the weights of a LayerNorm, there are neither ranks nor pairs.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.chunks import chunks
from newllm_core.analysis.rank import largest, projections
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
) -> dict[str, Any]:
    """Return figures of a matrix [N, D] or vector [N] in a `.safetensors` or `.npy` file.

    Memory holds a few rows and a square matrix of the smaller side, not the file, unless its
    numbers are in another byte order. Without a `tensor_name` the file has one matrix only.

    Raises:
        InputError: the file or tensor is missing, unreadable, no matrix of at least two rows, or
            holds values that are not finite.
    """
    config, progress = config or AnalysisConfig(), progress or Silent()
    tensor, name = _read(path, tensor_name)
    is_vector = tensor.ndim == 1
    label = f"{name or path.name} [{' x '.join(f'{side:,}' for side in tensor.shape)}]"
    progress.message(f"analysing {label}" + ("" if is_vector else f": {tensor.numel():,} values"))
    with progress.task(f"reading {label}", None, "rows"):
        place = f"{label} of {path}" if name else str(path)
        _check_values(tensor[:, None] if is_vector else tensor, place)
        if is_vector:
            figures = _vector_figures(tensor.double())
        else:
            figures = _matrix_figures(tensor, config, seed)
    return {"schema": SCHEMA, "file": str(path), "tensor": name, **figures}


def examine_states(
    states: Tensor, *, config: AnalysisConfig | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return figures of states [N, D] alone, those that `analyze --tensor` has of a matrix.

    Raises:
        ValueError: it is no matrix.
        InputError: it has one row, or values that are complex or not finite.
    """
    _check_values(states, "states")
    _check_shape(states.shape, "states")
    return {"schema": SCHEMA, **_matrix_figures(states, config or AnalysisConfig(), seed)}


def _matrix_figures(matrix_ND: Tensor, config: AnalysisConfig, seed: int) -> dict[str, Any]:
    figures, vectors_DK = matrix_sections(matrix_ND, config, seed=seed)
    projected_NK = projections(matrix_ND, vectors_DK)
    ids_N = torch.arange(len(matrix_ND), device=projected_NK.device)
    loadings = largest(ids_N, projected_NK, ROWS_PER_VECTOR)
    vectors = [
        {"singular_value": value, "rows": [{"id": row, "loading": x} for row, x in of_vector]}
        for value, of_vector in zip(figures["top_singular_values"], loadings, strict=True)
    ]
    return {"shape": list(matrix_ND.shape), **figures, "singular_vectors": vectors}


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


def _read(path: Path, tensor_name: str | None) -> tuple[Tensor, str | None]:
    """Return a matrix or vector that is mapped from a file, and its name."""
    if path.suffix == ".npy":
        if tensor_name is not None:
            raise InputError(f"{path} holds one array without a name: leave out --tensor")
        array = open_array(path)
        _check_shape(array.shape, str(path))
        # Of types that torch has, this is the mapped array itself.
        array = array.astype(
            "f8" if array.itemsize > 8 else array.dtype.newbyteorder("="), copy=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be written
            return torch.from_numpy(array), None
    with open_tensors(path) as file:
        shapes = {n: file.get_slice(n).get_shape() for n in list(file.keys())}
        name = _choose(path, shapes, tensor_name)
        label = f"tensor {name!r} of {path}"
        _check_shape(shapes[name], label)
        try:
            tensor = file.get_tensor(name)
            tensor[(slice(1),) * tensor.ndim].cdouble()
        except (TypeError, AttributeError, ValueError, NotImplementedError) as error:
            # A type that torch lacks, or cannot make another of.
            raise InputError(
                f"{label} has the type {file.get_slice(name).get_dtype()}: {reason(error)}"
            ) from error
        return tensor, name


def _choose(path: Path, shapes: dict[str, list[int]], asked: str | None) -> str:
    if asked is not None and asked in shapes:
        return asked
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if asked is None and len(matrices) == 1:
        return matrices[0]
    problem = f"no tensor {asked!r} in {path}" if asked else f"which tensor of {path}? use --tensor"
    listed = ", ".join(matrices[:8]) + (", …" if len(matrices) > 8 else "")
    raise InputError(f"{problem} (matrices in it: {listed or 'none'})")


def _check_shape(shape: Sequence[int], label: str) -> None:
    if len(shape) == 1 and 0 < shape[0] <= LONGEST_VECTOR:
        return
    has_shape = f"{label} has shape {list(shape)}"
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise InputError(
            f"{has_shape}: a matrix of at least two rows is needed, or a vector of up to "
            f"{LONGEST_VECTOR:,} values"
        )
    if min(shape) > WIDEST_SIDE:
        raise InputError(
            f"{has_shape}: its smaller side is more than {WIDEST_SIDE:,}, look at some of its rows "
            "instead"
        )


def _check_values(matrix_ND: Tensor, label: str) -> None:
    if matrix_ND.is_complex():
        raise InputError(f"{label} has the type {matrix_ND.dtype}, expected real numbers")
    begin, largest = 0, 0.0
    for chunk in chunks(matrix_ND):
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
