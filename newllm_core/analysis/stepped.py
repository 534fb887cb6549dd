"""Any `step(state, token_ids) -> state` as a recurrence, whatever its states are made of.

Tensors in tuples, lists, dictionaries and dataclasses are seen as one vector. What is no tensor is
taken over as it is in the start state.

Shapes: N rows, B streams, P passages, T tokens, C numbers in a state, K numbers kept of it.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.functional import jvp

from newllm_core.analysis.contexts import random_signs, sketches
from newllm_core.analysis.recurrence import DIFFERENCES, Recurrence, difference_product
from newllm_core.analysis.summary import gaussian_like
from newllm_core.errors import ConfigError, PluginError

Step = Callable[[Any, Tensor], Any]

# Longer states are kept as sketches: the work of a rank grows with the cube of this.
LONGEST_EXACT = 4096
# A derivative that says something else than a difference is none: a step that leaves torch, or
# cuts its gradient on purpose, has gradients without meaning.
LARGEST_DISAGREEMENT = 0.05
# Of differences that take the place of a derivative that could be had.
SMALL_ERROR = 1e-3
# Steps without an input before anything counts, and how far apart passages begin, relatively.
SETTLED_AFTER = 512
APART = 1e-6


class Stepped(Recurrence):
    """The recurrence of a step; `seed` is that of the sketch and of the check of its derivative.

    Messages begin with `name`.
    """

    def __init__(
        self,
        step: Step,
        start: Any,  # noqa: ANN401 - a nest
        *,
        seed: int = 0,
        name: str = "step",
    ) -> None:
        self.step = step
        self.name = name
        self.layout = layout = Layout(start)
        self.context_dim = layout.size
        self.largest_weight = self.context_dim**2
        self._start_1C = layout.flatten(start).detach()
        self._seed = seed
        self._is_checked = False
        self.is_projected = layout.size > LONGEST_EXACT
        if self.is_projected:
            self._signs_C = random_signs(self._start_1C[0], seed)

    def described(self) -> dict[str, Any]:
        """Return what a state is made of: `dimensions`, and `parts` with the numbers in each."""
        parts = dict(zip(self.layout.names, self.layout.sizes, strict=True))
        return {"dimensions": self.context_dim, "parts": parts, "is_sketched": self.is_projected}

    def start(self, num_streams: int) -> Tensor:
        """Return the start state of every stream [B, C]."""
        return self._start_1C.repeat(num_streams, 1)

    def starts(self, passages_PT: Tensor) -> Tensor:
        """Return the start state [P, C]; without an input, where a network is after a while.

        From one start and one input, all passages would be one passage: they begin a little apart,
        which chaos makes independent and nothing else keeps.
        """
        if len(torch.unique(passages_PT)) > 1:
            return self.start(len(passages_PT))
        tokens_P = passages_PT[:, 0]
        context_1C = self.start(1)
        for _ in range(SETTLED_AFTER):
            context_1C = self.read(context_1C, tokens_P[:1])
        context_PC = context_1C.repeat(len(tokens_P), 1)
        # Shrunk, not shifted: most ranges that a state must stay in reach to zero.
        context_PC = context_PC * (1 - APART * gaussian_like(context_PC, self._seed).abs())
        for _ in range(SETTLED_AFTER):
            context_PC = self.read(context_PC, tokens_P)
        return context_PC

    def read(self, context_NC: Tensor, tokens_N: Tensor) -> Tensor:
        """Return the states after the step [N, C]."""
        after = self.step(self.layout.nested(context_NC), tokens_N)
        try:
            return self.layout.flatten(after, len(context_NC))
        except ConfigError as error:
            raise PluginError(f"{self.name} returned {error}") from error

    def kept(self, context_NC: Tensor) -> Tensor:
        """Return the states, or sketches of them [N, K]."""
        return sketches(context_NC, self._signs_C) if self.is_projected else context_NC

    def push_forward(
        self, context_NC: Tensor, tokens_N: Tensor, vector_NC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the states after a token, and the Jacobian of that times `vector_NC`."""
        if not self._is_checked:
            self._is_checked = True
            self._check_derivative(context_NC[:1], tokens_N[:1])
        return super().push_forward(context_NC, tokens_N, vector_NC)

    def _check_derivative(self, context_1C: Tensor, tokens_1: Tensor) -> None:
        """Choose differences where the step's gradients are not its derivative."""
        update = partial(self.read, tokens_N=tokens_1)
        vector_1C = gaussian_like(context_1C, self._seed)
        near, far = (difference_product(update, context_1C, vector_1C, scale=s) for s in (1, 2))
        size = float(near.norm().clamp(min=1e-30))
        error = float((far - near).norm()) / size / 3
        # Reverse passes over long states take five times as long, and their memory.
        apart = math.inf
        if not (self.is_projected and error < SMALL_ERROR):
            # numpy, …
            with suppress(RuntimeError, NotImplementedError, TypeError, PluginError):
                _, exact = jvp(update, context_1C, vector_1C)
                apart = float((exact - near).norm()) / size
        # Where the step is so curved that two differences disagree, they are no judge.
        if apart > max(LARGEST_DISAGREEMENT, 6 * error):
            self.derivative, self.derivative_error = DIFFERENCES, error


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
    """How the states of a network are laid out in one vector, from a state of batch one.

    A complex number counts as two. `ConfigError`: `start` has no tensor, or one of another batch or
    of whole numbers.
    """

    def __init__(self, start: Any) -> None:  # noqa: ANN401 - any nest
        found = list(leaves(start))
        if not found:
            raise ConfigError(
                "start holds no tensor: give the state before any token, batch one, such as "
                "start = torch.zeros(1, 64)"
            )
        for name, tensor in found:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                raise ConfigError(f"start: {name} is {tensor.dtype}, a state is of real numbers")
            if not tensor.ndim or len(tensor) != 1 or not tensor.numel():
                shape = list(tensor.shape)
                raise ConfigError(f"start: {name} has shape {shape}, expected a batch of one")
        self._start = start
        self.names = [name for name, _ in found]
        self._like = [tensor for _, tensor in found]
        self.sizes = [_real(tensor).numel() for tensor in self._like]
        self.size = sum(self.sizes)
        kinds = [_real(tensor).dtype for tensor in self._like]
        self.dtype = torch.float64 if torch.float64 in kinds else torch.float32

    def flatten(self, state: Any, batch: int = 1) -> Tensor:  # noqa: ANN401 - any nest
        """Return a state as vectors [B, C]; `ConfigError` if its tensors are not those of start."""
        found = list(leaves(state))
        if len(found) != len(self._like):
            shapes = [list(tensor.shape) for _, tensor in found]
            raise ConfigError(f"tensors of shapes {shapes}, start has {len(self._like)} tensors")
        for (name, tensor), like in zip(found, self._like, strict=True):
            shape, expected = list(tensor.shape), [batch, *like.shape[1:]]
            if shape != expected:
                grows = len(shape) == len(expected) and shape[0] == batch
                grows = grows and all(map(operator.ge, shape, expected))
                why = ": a state that grows with the text is no recurrence" if grows else ""
                raise ConfigError(f"{name} of shape {shape}, expected {expected}{why}")
            if tensor.is_complex() != like.is_complex():
                raise ConfigError(f"{name} of {tensor.dtype}, in start it is {like.dtype}")
        return torch.cat([_real(t).flatten(1).to(self.dtype) for _, t in found], dim=1)

    def nested(self, context_BC: Tensor) -> Any:  # noqa: ANN401 - any nest
        """Return vectors [B, C] as the state that `step` takes: a copy, in which it may write."""
        parts = context_BC.split(self.sizes, dim=1)
        return replaced(self._start, map(_as, parts, self._like))


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _as(part: Tensor, like: Tensor) -> Tensor:
    shaped = part.reshape(len(part), *_real(like).shape[1:]).to(_real(like).dtype, copy=True)
    return torch.view_as_complex(shaped.contiguous()) if like.is_complex() else shaped
