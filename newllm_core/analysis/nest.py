"""States of any make, seen as one vector: tensors in tuples, lists, dictionaries and dataclasses.

What is no tensor (a number, a name, None) is taken over as it is in the start state.

Shapes: B streams, C numbers in a state.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from newllm_core.errors import ConfigError


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401 - any nest
    """Yield every tensor of a nest with its name, such as `layers.0.key`."""
    if isinstance(state, Tensor):
        yield name or "state", state
        return
    for key, part in _parts(state).items():
        yield from leaves(part, f"{name}.{key}" if name else str(key))


def replaced(state: Any, tensors: Iterator[Tensor]) -> Any:  # noqa: ANN401 - any nest
    """Return the same nest with other tensors, taken in the order of `leaves`."""
    if isinstance(state, Tensor):
        return next(tensors)
    parts = {key: replaced(part, tensors) for key, part in _parts(state).items()}
    if not parts:
        return state
    if isinstance(state, Mapping):
        return type(state)(parts)  # type: ignore[call-arg]
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return dataclasses.replace(state, **parts)
    values = list(parts.values())
    return type(state)(*values) if hasattr(state, "_fields") else type(state)(values)


def _parts(state: Any) -> dict[Any, Any]:  # noqa: ANN401 - any nest
    if isinstance(state, Mapping):
        return dict(state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return {spec.name: getattr(state, spec.name) for spec in dataclasses.fields(state)}
    if isinstance(state, tuple) and hasattr(state, "_asdict"):
        return dict(state._asdict())
    return dict(enumerate(state)) if isinstance(state, list | tuple) else {}


class Layout:
    """How the states of a network are laid out in one vector.

    Args:
        start: a state of batch one: its tensors are [1, ...], of real or complex numbers.

    Raises:
        ConfigError: it has no tensor, or one of another batch or of whole numbers.

    Attributes:
        names: of the tensors.
        sizes: numbers in each; a complex one counts as two.
        size: C, numbers in all.
    """

    def __init__(self, start: Any) -> None:  # noqa: ANN401 - any nest
        found = list(leaves(start))
        if not found:
            raise ConfigError("start holds no tensor: give the state before any token, batch one")
        for name, tensor in found:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                raise ConfigError(f"start: {name} is {tensor.dtype}, a state is of real numbers")
            if not tensor.ndim or len(tensor) != 1:
                shape = list(tensor.shape)
                raise ConfigError(f"start: {name} has shape {shape}, expected a batch of one")
        self._start = start
        self.names = [name for name, _ in found]
        self._like = [tensor for _, tensor in found]
        self.sizes = [_real(tensor).numel() for tensor in self._like]
        self.size = sum(self.sizes)
        kinds = [_real(tensor).dtype for tensor in self._like]
        self.dtype = torch.float64 if torch.float64 in kinds else torch.float32
        self.device = self._like[0].device

    def flatten(self, state: Any) -> Tensor:  # noqa: ANN401 - any nest
        """Return a state as vectors [B, C].

        Raises:
            ConfigError: it has other tensors than the start, or others' shapes.
        """
        found = list(leaves(state))
        for (name, tensor), like in zip(found, self._like, strict=False):
            if tensor.shape[1:] != like.shape[1:]:
                raise ConfigError(
                    f"step: {name} has shape {list(tensor.shape)}, in start it is "
                    f"{list(like.shape)}: a state that grows with the text is no recurrence"
                )
        if len(found) != len(self._like):
            raise ConfigError(f"step: returned {len(found)} tensors, start has {len(self._like)}")
        return torch.cat([_real(t).flatten(1).to(self.dtype) for _, t in found], dim=1)

    def nested(self, context_BC: Tensor) -> Any:  # noqa: ANN401 - any nest
        """Return vectors [B, C] as the state that `step` takes."""
        parts = context_BC.split(self.sizes, dim=1)
        return replaced(self._start, map(_as, parts, self._like))


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _as(part: Tensor, like: Tensor) -> Tensor:
    shaped = part.reshape(len(part), *_real(like).shape[1:]).to(_real(like).dtype)
    return torch.view_as_complex(shaped.contiguous()) if like.is_complex() else shaped
