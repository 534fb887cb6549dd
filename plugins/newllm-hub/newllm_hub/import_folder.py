"""From a model folder back to a checkpoint, also after training in Transformers."""

import dataclasses
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from newllm_core.checkpoint.format import FORMAT, Checkpoint, load, save
from newllm_core.checkpoint.metadata import model_shape
from newllm_core.errors import InputError, reason
from newllm_core.files.lock import exclusive
from newllm_core.files.names import require_checkpoint_place
from newllm_core.files.tensor_files import open_tensors, save_tensors
from newllm_hub import folder


def import_checkpoint(source: Path, out: Path, *, overwrite: bool = False) -> Checkpoint:
    """Write the checkpoint `out` of an exported folder; return it.

    A folder whose weights are as they were exported gives the checkpoint as it was. Otherwise it
    has no figures, for nobody measured these weights, and says in its provenance that they were
    trained outside of newllm.

    Args:
        source: what `newllm export` wrote, or Transformers saved of it.
        out: the checkpoint to write.
        overwrite: replace a file at `out`.

    Raises:
        ConfigError: `out` is no name of a checkpoint.
        InputError: `source` is no such folder or its parts do not belong together, or `out` cannot
            be written.
    """
    require_checkpoint_place(out, overwrite=overwrite)
    kept, metadata = _companion(source)
    try:
        num_heads = model_shape(metadata)["num_heads"]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{source / folder.COMPANION} is damaged: {reason(error)}") from error
    tensors = kept | _weights(source, num_heads)
    try:
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            whole = Path(temporary) / out.name
            save_tensors(tensors, whole, metadata | {"format": FORMAT})
            checkpoint = _loaded(whole, source)
    except OSError as error:
        raise InputError(f"cannot write {out}: {reason(error)}") from error
    if checkpoint.altered:
        made = checkpoint.provenance | {"trained_outside": True}
        checkpoint = dataclasses.replace(checkpoint, provenance=made, altered=False)
    with exclusive(out):
        save(checkpoint, out, overwrite=overwrite)
    return checkpoint


def _loaded(whole: Path, source: Path) -> Checkpoint:
    try:
        return load(whole)
    except InputError as error:
        said = str(error).replace(f"{whole} is a damaged checkpoint: ", "")
        raise InputError(
            f"{source} does not fit what it was exported from ({said}): newllm imports weights of "
            "the same shapes, in one file"
        ) from error


def _companion(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a checkpoint that are not in the model's file."""
    path = source / folder.COMPANION
    if not os.path.isdir(source):
        raise InputError(f"no such folder: {source}")
    if not os.path.isfile(path):
        raise InputError(
            f"{source} has no {folder.COMPANION}: copy it there from the folder that newllm export "
            "wrote"
        )
    with open_tensors(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != folder.COMPANION_FORMAT:
            raise InputError(f"{path} was not written by newllm export")
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def _weights(source: Path, num_heads: int) -> dict[str, Tensor]:
    """Return parameters in float32, under their names in a checkpoint."""
    with open_tensors(source / folder.MODEL, "model") as file:
        return {
            folder.name_in_checkpoint(name, num_heads): _wide(file.get_tensor(name))
            for name in file.keys()  # noqa: SIM118 - no mapping
        }


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
