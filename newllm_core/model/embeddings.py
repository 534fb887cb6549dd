"""Pretrained token embeddings from a safetensors file."""

from pathlib import Path

import torch

from newllm_core.errors import InputError, reason
from newllm_core.files.tensor_files import open_tensors
from newllm_core.model.language_model import LanguageModel


def load_embeddings(model: LanguageModel, spec: str, *, added_tokens: int) -> str:
    """Fill and freeze `model.embedding` from `FILE.safetensors[:TENSOR]`; returns what was done.

    Rows of special tokens that newllm added to the tokenizer (`added_tokens`, the last ids) are in
    no pretrained file: they keep random rows, scaled to the mean norm of the others. Of a matrix
    with more rows than tokens (files are padded to round numbers) the first ones are taken.

    Raises:
        InputError: no such file or tensor, its shape does not fit vocabulary and embed_dim, or it
            holds values that are not finite.
    """
    embed_dim = model.config.embed_dim
    base_vocab = model.vocab_size - added_tokens
    path, name = split_spec(spec)
    with open_tensors(path) as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        matrices = [key for key, shape in shapes.items() if len(shape) == 2]
        chosen = name if name is not None else matrices[0] if len(matrices) == 1 else None
        if chosen is None or chosen not in shapes:
            asked = f"no tensor {name!r} in" if name else "which tensor is meant in"
            shown = ", ".join(list(shapes)[:8]) + (", …" if len(shapes) > 8 else "")
            raise InputError(f"{asked} {path}? It holds {shown or 'nothing'}")
        shape = shapes[chosen]
        if len(shape) != 2:
            raise InputError(
                f"embeddings {spec} have shape {shape}: name a matrix, a row per token"
            )
        if shape[1] != embed_dim:
            raise InputError(
                f"embeddings {spec} have shape {shape}, "
                f"but model.embed_dim is {embed_dim}: set --embed-dim {shape[1]}"
            )
        if shape[0] < base_vocab:
            raise InputError(
                f"embeddings {spec} have {shape[0]} rows, but the tokenizer has {base_vocab} "
                f"tokens (and {added_tokens} added): prepare the data with the tokenizer they "
                "belong to"
            )
        try:
            matrix = file.get_tensor(chosen)
        except (TypeError, AttributeError, ValueError) as error:  # types that torch lacks
            raise InputError(f"tensor {chosen!r} of {path}: {reason(error)}") from error
    # A file of exactly as many rows as there are tokens knows the added ones too.
    weight = matrix if len(matrix) == model.vocab_size else matrix[:base_vocab]
    if not weight.is_floating_point() or not torch.isfinite(weight.float()).all():
        raise InputError(f"embeddings {spec} hold values that are not finite numbers")
    table = model.embedding.weight
    with torch.no_grad():
        table.mul_(weight.double().norm(dim=1).mean() / table.double().norm(dim=1).mean())
        table[: len(weight)] = weight.to(table.dtype)
    if not torch.isfinite(table).all():
        raise InputError(f"embeddings {spec} hold values that are too large")
    model.embedding.requires_grad_(False)
    said = f"loaded {len(weight):,} embeddings of {embed_dim:,} dimensions from {spec}, frozen"
    if len(weight) < len(matrix):
        said += f"; the tokenizer has no tokens for the last {len(matrix) - len(weight):,} rows"
    return said


def split_spec(spec: str) -> tuple[Path, str | None]:
    """Return `FILE.safetensors[:TENSOR]` as its two parts."""
    file, marker, tensor = spec.partition(".safetensors:")
    return (Path(file + ".safetensors"), tensor) if marker else (Path(spec), None)
