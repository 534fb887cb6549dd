"""Pretrained token embeddings from a safetensors file."""

from pathlib import Path

import torch

from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel


def load_embeddings(model: LanguageModel, spec: str, *, added_tokens: int) -> str:
    """Fill and freeze `model.embedding` from `FILE.safetensors[:TENSOR]`; returns what was done.

    Rows of special tokens that newllm added to the tokenizer (`added_tokens`, the last ids) are in
    no pretrained file: they keep random rows, scaled to the file's mean row norm.

    Raises:
        InputError: no such file or tensor, its shape does not fit vocabulary and embed_dim, or it
            holds values that are not finite.
    """
    path, name = split_spec(spec)
    weight = read_tensor(path, name)
    embed_dim = model.config.embed_dim
    base_vocab = model.vocab_size - added_tokens
    if weight.ndim != 2:
        raise InputError(
            f"embeddings {spec} have shape {list(weight.shape)}: name a matrix, a row per token"
        )
    if weight.shape[1] != embed_dim:
        raise InputError(
            f"embeddings {spec} have shape {list(weight.shape)}, "
            f"but model.embed_dim is {embed_dim}: set --embed-dim {weight.shape[-1]}"
        )
    if len(weight) not in (model.vocab_size, base_vocab):
        raise InputError(
            f"embeddings {spec} have {len(weight)} rows, but the tokenizer has {base_vocab} tokens "
            f"(and {added_tokens} added): prepare the data with the tokenizer they belong to"
        )
    if not torch.isfinite(weight).all():
        raise InputError(f"embeddings {spec} hold values that are not finite")
    table = model.embedding.weight
    with torch.no_grad():
        table.mul_(weight.float().norm(dim=1).mean() / table.norm(dim=1).mean())
        table[: len(weight)] = weight.to(table.dtype)
    model.embedding.requires_grad_(False)
    return f"loaded {len(weight)} embeddings of {embed_dim} dimensions from {spec}, frozen"


def split_spec(spec: str) -> tuple[Path, str | None]:
    """`FILE.safetensors[:TENSOR]` as its two parts."""
    file, marker, tensor = spec.partition(".safetensors:")
    return (Path(file + ".safetensors"), tensor) if marker else (Path(spec), None)


def read_tensor(path: Path, name: str | None) -> torch.Tensor:
    """The tensor `name` of a safetensors file, or its only two-dimensional one.

    Raises:
        InputError: the file cannot be read, or it is not clear which tensor is meant.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            matrices = [n for n in names if len(file.get_slice(n).get_shape()) == 2]
            chosen = name if name is not None else matrices[0] if len(matrices) == 1 else None
            if chosen is None or chosen not in names:
                asked = f"no tensor {name!r} in" if name else "which tensor is meant in"
                shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
                raise InputError(f"{asked} {path}? It holds {shown or 'nothing'}")
            return file.get_tensor(chosen)
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
