"""An echo state network in a safetensors file, as reservoirpy and others make them.

    c' = (1 - lr) c + lr f(W c + Win x + bias)

Tensors `W` [N, N], `Win` [N, F], and if they are there `bias` [N] or [N, 1] and `lr` (one number);
what token ids stand for is another one [V, F]. f is tanh, or nothing in a file with `identity`.
"""

from pathlib import Path

import torch
from torch import Tensor

from newllm_core.analysis.foreign.base import Foreign, Network, read_tensors, table
from newllm_core.analysis.stepped import Step
from newllm_core.errors import InputError

OWN = ("W", "Win", "bias", "lr", "identity")


class Reservoir(Foreign):
    """A leaky reservoir of tanh or linear units."""

    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Open the file, see `Foreign.open`; its control has the numbers of W in other places."""
        tensors = read_tensors(path, device)
        if not {"W", "Win"} <= set(tensors):
            raise InputError(f"{path} has no tensors W and Win: it is no reservoir")
        matrix = tensors["W"]
        inlet = tensors["Win"].to(matrix)
        fits = matrix.ndim == inlet.ndim == 2 and inlet.numel() > 0
        if not fits or not len(matrix) == matrix.shape[1] == len(inlet):
            raise InputError(
                f"{path}: W has shape {list(matrix.shape)} and Win {list(inlet.shape)}, expected "
                "[N, N] and [N, F]"
            )
        units = len(matrix)
        others = {name: tensor for name, tensor in tensors.items() if name not in OWN}
        values_VF = table(others, embedding, inlet.shape[1], path)
        bias = tensors.get("bias", matrix.new_zeros(units)).flatten()
        rate = tensors.get("lr", matrix.new_ones(1)).flatten()
        if not {len(bias), len(rate)} <= {1, units}:
            raise InputError(
                f"{path}: bias has {len(bias)} numbers and lr {len(rate)}, expected {units} or one"
            )
        driven_VN = values_VF.to(matrix) @ inlet.T + bias

        def reading(recurrent: Tensor) -> Step:
            def step(state: Tensor, ids: Tensor) -> Tensor:
                raw = state @ recurrent.T + driven_VN[ids]
                return (1 - rate) * state + rate * (raw if "identity" in tensors else raw.tanh())

            return step

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
