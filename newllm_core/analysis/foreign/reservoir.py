"""An echo state network in a safetensors file, as reservoirpy and others make them.

    c' = (1 - lr) c + lr f(W c + Win x + bias)

Tensors `W` [N, N], `Win` [N, F], and if they are there `bias` [N] or [N, 1] and `lr` (one number);
what token ids stand for is another one [V, F]. f is tanh, or nothing in a file with `identity`.
"""

from pathlib import Path

import torch
from torch import Tensor

from newllm_core.analysis.foreign.base import Foreign, Network
from newllm_core.analysis.foreign.tensors import read_tensors, table
from newllm_core.errors import InputError

OWN = ("W", "Win", "bias", "lr", "identity")


class Reservoir(Foreign):
    """A leaky reservoir of tanh or linear units."""

    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Open the file; its control has the same numbers of W in other places.

        Raises:
            ConfigError: `embedding` must be named.
            InputError: the file has no such tensors.
        """
        tensors = read_tensors(path, device)
        if not {"W", "Win"} <= set(tensors):
            raise InputError(f"{path} has no tensors W and Win: it is no reservoir")
        matrix, inlet = tensors["W"], tensors["Win"]
        units = len(matrix)
        if matrix.shape != (units, units) or inlet.ndim != 2 or len(inlet) != units:
            raise InputError(
                f"{path}: W has shape {list(matrix.shape)} and Win {list(inlet.shape)}, expected "
                "[N, N] and [N, F]"
            )
        values_VF = table(
            {name: t for name, t in tensors.items() if name not in OWN},
            embedding,
            inlet.shape[1],
            path,
        )
        bias = tensors.get("bias", matrix.new_zeros(units)).flatten()
        rate = tensors.get("lr", matrix.new_ones(1)).flatten()
        driven_VN = values_VF.to(matrix) @ inlet.T + bias

        def reading(recurrent: Tensor) -> "_Step":
            return _Step(recurrent, driven_VN, rate, linear="identity" in tensors)

        generator = torch.Generator().manual_seed(seed)
        mixed = matrix.flatten()[torch.randperm(units**2, generator=generator).to(matrix.device)]
        return Network(
            step=reading(matrix),
            control=reading(mixed.view(units, units)),
            start=matrix.new_zeros(1, units),
            parameters=matrix.numel() + inlet.numel() + bias.numel(),
            vocab_size=len(values_VF),
            values=values_VF,
        )


class _Step:
    def __init__(self, matrix: Tensor, driven_VN: Tensor, rate: Tensor, *, linear: bool) -> None:
        self.matrix, self.driven_VN, self.rate, self.linear = matrix, driven_VN, rate, linear

    def __call__(self, state: Tensor, ids: Tensor) -> Tensor:
        raw = state @ self.matrix.T + self.driven_VN[ids]
        return (1 - self.rate) * state + self.rate * (raw if self.linear else torch.tanh(raw))
