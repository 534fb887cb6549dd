"""Weights of `torch.nn.RNN`, `GRU` and `LSTM` in a safetensors file.

The state is [B, layers, hidden], of an LSTM a pair of them.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from newllm_core.analysis.foreign.base import Foreign, Network, read_tensors, table
from newllm_core.analysis.stepped import Step
from newllm_core.config.values import shown
from newllm_core.errors import InputError
from newllm_core.runtime.repeatable import seeded

WEIGHT = re.compile(r"(.*)weight_ih_l(\d+)$")
NOT_READ = ("_reverse", "weight_hr")


class TorchRnn(Foreign):
    """An Elman network with tanh, `torch.nn.RNN`."""

    module: ClassVar[Callable[..., nn.RNNBase]] = nn.RNN
    gates: ClassVar[int] = 1

    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Open the file, see `Foreign.open`; its twin has weights as torch draws them."""
        tensors = read_tensors(path, device)
        layers = [match for name in tensors if (match := WEIGHT.match(name))]
        prefixes = sorted({match[1] for match in layers})
        if len(prefixes) > 1:
            raise InputError(
                f"{path} has {len(prefixes)} networks ({shown(prefixes)}): save one of them alone, "
                "with what token ids stand for"
            )
        prefix = prefixes[0] if prefixes else ""
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if _is_of(name, prefix)}
        kind = type(self).__name__.removeprefix("Torch").upper()
        first, recurrent = own.get("weight_ih_l0"), own.get("weight_hh_l0")
        not_read = [name for name in own if any(part in name for part in NOT_READ)]
        if first is None or recurrent is None or not_read:
            raise InputError(
                f"{path} has no weights of one torch.nn.{kind} that reads forward (weight_ih_l0, …)"
                f"{f', but {not_read[0]}, which is not read' if not_read else ''}"
            )
        shapes = list(first.shape), list(recurrent.shape)
        fits = first.ndim == recurrent.ndim == 2 and first.numel() > 0
        if not fits or len(first) != self.gates * recurrent.shape[1]:
            raise InputError(
                f"{path}: weight_ih_l0 has shape {shapes[0]} and weight_hh_l0 {shapes[1]}, which "
                f"do not fit{_as_another(first, recurrent) if fits else ''}"
            )
        sizes = (first.shape[1], recurrent.shape[1], len(layers))
        others = {name: t for name, t in tensors.items() if not _is_of(name, prefix)}
        embedded_VE = table(others, embedding, sizes[0], path).to(first)
        with seeded(seed):
            made = self.module(*sizes, bias=any("bias" in name for name in own))
        control = made.to(first.device, first.dtype).requires_grad_(False)
        network = copy.deepcopy(control)
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise InputError(
                f"{path} has no weights of a torch.nn.{kind} of {sizes[2]} layers: {error}"
            ) from error
        start = torch.zeros(1, sizes[2], sizes[1], dtype=first.dtype, device=device)
        return Network(
            step=_step(network, embedded_VE),
            control=_step(control, embedded_VE),
            start=(start, start) if self.module is nn.LSTM else start,
            parameters=embedded_VE.numel() + sum(p.numel() for p in network.parameters()),
            vocab_size=len(embedded_VE),
        )


class TorchGru(TorchRnn):
    """A gated recurrent unit, `torch.nn.GRU`."""

    module = nn.GRU
    gates = 3


class TorchLstm(TorchRnn):
    """A long short-term memory, `torch.nn.LSTM`."""

    module = nn.LSTM
    gates = 4


def _as_another(first: Tensor, recurrent: Tensor) -> str:
    """Say of which kind weights of these shapes are, if of any."""
    gates, rest = divmod(len(first), max(1, recurrent.shape[1]))
    names = {1: "rnn", 3: "gru", 4: "lstm"}
    fits = not rest and len(recurrent) == len(first) and gates in names
    return f" here; they are those of --as {names[gates]}" if fits else ""


def _is_of(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and bool(
        re.match(r"(weight|bias)_(ih|hh|hr)_l\d+", name.removeprefix(prefix))
    )


def _step(network: nn.RNNBase, embedded_VE: Tensor) -> Step:
    def swapped(state: Any) -> Any:  # noqa: ANN401 - a tensor or a pair
        if isinstance(state, tuple):
            return tuple(map(swapped, state))
        return state.transpose(0, 1).contiguous()

    def step(state: Any, ids: Tensor) -> Any:  # noqa: ANN401 - a tensor or a pair
        # cuDNN's networks have no second derivative, and round products to TF32.
        with torch.backends.cudnn.flags(enabled=False):
            return swapped(network(embedded_VE[ids][None], swapped(state))[1])

    return step
