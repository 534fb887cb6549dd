"""Safetensors files that others made: opened only if their header can be held in memory."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.errors import InputError, reason
from newllm_core.files.atomic import write_atomically
from newllm_core.files.escapes import escaped
from newllm_core.files.from_strangers import regular_file

if TYPE_CHECKING:
    from torch import Tensor

# The format allows 100 MB, which takes some 2 GB to parse. Real ones have a few MB: the names of
# tensors, and in a checkpoint its tokenizer.
LARGEST_HEADER = 1 << 25
LARGEST_METADATA = LARGEST_HEADER // 2  # quotes and line ends take two bytes each there
KIND = "safetensors file"
HASH = "sha256"
# What people take for one, by its first bytes, which no length of a header begins with.
OTHER_KINDS = {
    b"PK\3\4": "a zip archive, such as .npz or a PyTorch pickle; save its tensors as safetensors",
    b"\x80": "a pickle, which is never loaded; save its tensors as safetensors",
    b"{": "JSON; if it is the index of a model in several files, give one of those",
    b"\x93NUMPY": "an array of NumPy; its name must end in .npy",
    b"GGUF": "a GGUF file, which newllm does not read",
    b"\x1f\x8b": "compressed; unpack it first",
}


@contextmanager
def open_tensors(path: Path, what: str = KIND, *, framework: str = "pt") -> Iterator[Any]:
    """Open what `safetensors.safe_open` gives: names, shapes and types are read, no tensor yet.

    `InputError` if the file, which messages call `what`, is missing, truncated or damaged; also
    where that shows while it is read.
    """
    from safetensors import SafetensorError, safe_open

    regular_file(path, what)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if int.from_bytes(start, "little") > LARGEST_HEADER:
                kinds = (told for first, told in OTHER_KINDS.items() if start.startswith(first))
                found = next(kinds, "something else, or damaged")
                raise InputError(f"{path} is not a readable {what}: it is {found}")
            # safetensors takes Unicode names alone; an open file has another one.
            name = str(path) if escaped(str(path)) == str(path) else f"/dev/fd/{file.fileno()}"
            try:
                opened = safe_open(name, framework=framework)
            except SafetensorError as error:
                raise InputError(
                    f"{path} is not a readable {what}: it is cut off or damaged, copy or save it "
                    f"again ({reason(error)})"
                ) from error
            with opened as tensors:
                yield tensors
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable {what}: {reason(error)}") from error


def save_tensors(tensors: "dict[str, Tensor]", path: Path, metadata: dict[str, str]) -> None:
    """Write a file that `open_tensors` reads; `InputError` if its header would be too large."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    size = sum(len(value.encode("utf-8")) for value in metadata.values())
    if size > LARGEST_METADATA:
        raise InputError(
            f"cannot write {path}: tokenizer and history have {size:,} bytes, at most "
            f"{LARGEST_METADATA:,} fit: use a smaller vocabulary"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # safetensors words its own I/O errors
        raise OSError(str(error)) from error


def save_with_hash(tensors: "dict[str, Tensor]", path: Path, metadata: Mapping[str, str]) -> None:
    """Write atomically a file that `open_tensors` reads, `HASH` of all of it in its metadata."""
    described = {**metadata, HASH: content_hash(tensors, metadata)}
    write_atomically(path, lambda temporary: save_tensors(tensors, temporary, described))


def content_hash(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> str:
    """SHA-256 of all metadata but `HASH`, and of names, types, shapes and values of all tensors."""
    described = {name: value for name, value in metadata.items() if name != HASH}
    found = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(bytes_of(tensor))
    return found.hexdigest()


def bytes_of(tensor: "Tensor") -> memoryview:
    """Return the values of a tensor as bytes, of types that numpy does not have as well."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
