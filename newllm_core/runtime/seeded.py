"""What code that is not ours draws and changes, where a run must be repeatable."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from newllm_core.errors import PluginError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what the body draws on the processor follow from `seed`; put back what was before."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def leaving_alone(module: nn.Module, what: str) -> Iterator[None]:
    """Raise `PluginError` if the body, `what`, changes tensors of `module` or draws numbers."""
    held, numbers = tensors_of(module), _states()
    yield
    now = tensors_of(module)
    if changed := [name for name in held | now if not _same(held.get(name), now.get(name))]:
        raise PluginError(f"{what} changes {', '.join(changed)}: keep nothing between two calls")
    if not torch.equal(numbers, _states()):
        raise PluginError(f"{what} draws random numbers, as dropout does: use none")


def tensors_of(module: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """Return parameters and buffers by name, each with how often it was written to."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: (tensor, tensor._version) for name, tensor in named}


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    return bool(one and other and one[0] is other[0] and one[1] == other[1])


def _states() -> Tensor:
    """Return where torch's own random streams are."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return torch.cat([torch.get_rng_state(), *gpu])
