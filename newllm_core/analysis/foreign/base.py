"""A kind of foreign network: a class that opens its files, an entry point of `newllm.recurrences`.

Its name is what `newllm analyze --as` takes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.stepped import Step
from newllm_core.errors import ConfigError, InputError, PluginError, UserError, reason
from newllm_core.files.tensor_files import open_tensors
from newllm_core.plugins.plugin import Plugin

FUNCTIONS = ("step", "control", "encode", "text")


@dataclass(frozen=True)
class Network:
    """An opened network.

    Attributes:
        step: see `newllm_core.analysis.examine`, as `start` and `control`.
        start: the state before any token, batch one.
        control: the step of the same network untrained.
        parameters: how many it has; 0 if that is not known.
        vocab_size: ids are below it; None if any may be read.
        encode: turns a text into token ids, if it has a tokenizer.
        text: shows a token.
        values: numbers that ids stand for [V, F], where inputs are no words.
    """

    step: Step
    start: Any
    control: Step | None = None
    parameters: int = 0
    vocab_size: int | None = None
    encode: Callable[[str], list[int]] | None = None
    text: Callable[[int], str] | None = None
    values: Tensor | None = None


def named(network: Network, what: str, plugin: Plugin) -> Network:
    """Return the network with functions that raise one line about `what`, which `plugin` is."""

    def blaming(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:  # noqa: ANN401 - a step, or what reads and shows a text
            try:
                return function(*given)
            except UserError:
                raise
            except (Exception, SystemExit) as error:
                ids = f" for token ids up to {int(given[1].max())}" if len(given) > 1 else ""
                raise PluginError(f"{what}: {name} failed{ids}: {plugin.raised(error)}") from error

        return call

    found = {name: getattr(network, name) for name in FUNCTIONS}
    blamed: dict[str, Any] = {name: blaming(name, f) for name, f in found.items() if f}
    return replace(network, **blamed)


class Foreign(ABC):
    """A kind of network in files."""

    @abstractmethod
    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Open a network.

        Args:
            path: its file or folder.
            embedding: the tensor that says what token ids stand for, where a file has several.
            seed: of the untrained twin.
            device: where it computes.

        Raises:
            InputError: it cannot be read, or is no network of this kind.
        """


def read_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file in float32, or float64 where it is that.

    Raises:
        InputError: it cannot be read, or a tensor is complex or not finite.
    """
    found = {}
    with open_tensors(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            try:
                tensor = file.get_tensor(name)
            except (TypeError, AttributeError, ValueError) as error:  # types that torch lacks
                raise InputError(f"tensor {name!r} of {path}: {reason(error)}") from error
            if tensor.is_complex():
                raise InputError(f"tensor {name!r} of {path} is {tensor.dtype}, expected real ones")
            tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"tensor {name!r} of {path} holds values that are not finite")
            found[name] = tensor.to(device)
    return found


def table(tensors: dict[str, Tensor], asked: str | None, width: int, path: Path) -> Tensor:
    """Return the matrix [V, width] that says what token ids stand for.

    Raises:
        ConfigError: it was not named, and there are several matrices of that width.
        InputError: the file has no such tensor.
    """
    fitting = [n for n, t in tensors.items() if t.ndim == 2 and t.shape[1] == width]
    if asked is None and len(fitting) == 1:
        return tensors[fitting[0]]
    if asked is None and not fitting:
        raise InputError(
            f"{path} has no tensor [V, {width}] with what token ids stand for: add it to the file "
            f"(for one-hot inputs torch.eye({width}))"
        )
    if asked is None:
        raise ConfigError(
            f"{path}: which tensor [V, {width}] do token ids stand for? give --embedding NAME "
            f"(of that width: {', '.join(fitting[:6])})"
        )
    if asked not in fitting:
        shape = list(tensors[asked].shape) if asked in tensors else "none of that name"
        raise InputError(f"--embedding {asked}: {path} has {shape}, expected [V, {width}]")
    return tensors[asked]
