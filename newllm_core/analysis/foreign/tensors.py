"""Tensors of a foreign network, by name."""

from pathlib import Path

import torch
from torch import Tensor

from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.files.tensor_files import open_tensors


def read_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    """Return every tensor of numbers in a safetensors file, half precision as float32.

    Raises:
        InputError: it cannot be read, or holds values that are not finite.
    """
    found = {}
    with open_tensors(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            try:
                tensor = file.get_tensor(name)
            except (TypeError, AttributeError, ValueError) as error:  # types that torch lacks
                raise InputError(f"tensor {name!r} of {path}: {reason(error)}") from error
            if tensor.is_floating_point():
                tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
                if not bool(torch.isfinite(tensor).all()):
                    raise InputError(f"tensor {name!r} of {path} holds values that are not finite")
                found[name] = tensor.to(device)
    return found


def table(tensors: dict[str, Tensor], asked: str | None, width: int, path: Path) -> Tensor:
    """Return the matrix [V, width] that says what token ids stand for.

    Raises:
        ConfigError: it was not named, and there is not just one matrix of that width.
        InputError: the file has no such tensor.
    """
    fitting = [n for n, t in tensors.items() if t.ndim == 2 and t.shape[1] == width]
    if asked is None and len(fitting) == 1:
        return tensors[fitting[0]]
    if asked is None:
        listed = ", ".join(fitting[:6]) or "none"
        raise ConfigError(
            f"{path}: which tensor [V, {width}] do token ids stand for? give --embedding NAME "
            f"(of that width: {listed})"
        )
    if asked not in fitting:
        shape = list(tensors[asked].shape) if asked in tensors else "none of that name"
        raise InputError(f"--embedding {asked}: {path} has {shape}, expected [V, {width}]")
    return tensors[asked]
