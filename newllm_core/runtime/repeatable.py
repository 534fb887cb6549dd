"""Code that is not ours, where a run must be repeatable: what it draws, what it changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from newllm_core.errors import PluginError

Module = TypeVar("Module", bound=nn.Module)
NOTHING_KEPT = "keep nothing between two calls"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what the body draws on the processor follow from `seed`; put back what was before."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def leaving_alone(module: nn.Module | None, what: str) -> Iterator[None]:
    """Raise `PluginError` if the body, `what`, draws numbers or changes tensors of `module`."""
    held, numbers = tensors_of(module), _states()
    yield
    now = tensors_of(module)
    if changed := [name for name in held | now if not _same(held.get(name), now.get(name))]:
        raise PluginError(f"{what} changes {', '.join(changed)}: {NOTHING_KEPT}")
    if numbers != _states():
        raise PluginError(f"{what} draws torch's random numbers, as dropout does: use none")


def require_same_twice(
    make: Callable[[], Module], call: Callable[[Module], Tensor], seed: int, what: str
) -> None:
    """Raise `PluginError` if two that one seed makes differ, share tensors or change at a call."""
    made = []
    for _ in range(2):
        with seeded(seed):
            made.append(make())
    one, other = (tensors_of(each) for each in made)
    names = [name for name in one if not torch.equal(one[name][0], other[name][0])]
    before = {name: tensor.clone() for name, (tensor, _) in one.items()}
    # What is no parameter and no buffer shows in what comes out.
    pair = [call(each).nan_to_num() for each in made]
    if names or not torch.equal(*pair):
        raise PluginError(
            f"{what}: one seed makes two that differ{' in ' if names else ''}{', '.join(names)}: "
            "draw with torch in __init__, from its generator in initialise"
        )
    # `leaving_alone` does not see what is written to `tensor.data`.
    parameters = dict(made[0].named_parameters())
    if changed := [name for name in parameters if not torch.equal(one[name][0], before[name])]:
        raise PluginError(f"{what}: a call changes {', '.join(changed)}: keep nothing")
    if shared := [name for name in one if one[name][0] is other[name][0]]:
        raise PluginError(f"{what}: all have the same {', '.join(shared)}: make it in __init__")


def require_finite(module: nn.Module, what: str) -> None:
    """Raise `PluginError` if `module` would save what no checkpoint may hold."""
    odd = [name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()]
    if odd:
        raise PluginError(
            f"{what}: {', '.join(odd)} holds values that are not finite, which no checkpoint may: "
            "register_buffer(..., persistent=False), or make it in each call"
        )


def tensors_of(module: nn.Module | None) -> dict[str, tuple[Tensor, int]]:
    """Return parameters and buffers by name, each with how often it was written to."""
    named = [] if module is None else [*module.named_parameters(), *module.named_buffers()]
    return {name: (tensor, tensor._version) for name, tensor in named}


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    return bool(one and other and one[0] is other[0] and one[1] == other[1])


def _states() -> list[bytes]:
    """Return where torch's own random streams are."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [state.numpy().tobytes() for state in (torch.get_rng_state(), *gpu)]
