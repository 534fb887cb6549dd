"""Parameters, gradients and optimizer state divided among processes (`run.sharding = "full"`).

PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`) does the work. A unit is gathered when it is
used and divided again afterwards; its gradients are summed where they are kept. Units are the
embedding, every head, and the whole recurrence, because a token passes all blocks before the next
can be read.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import nn

from newllm_core.config import RunConfig
from newllm_core.errors import ConfigError
from newllm_core.parallel import collectives
from newllm_core.parallel.collectives import full_tensor

Result = TypeVar("Result")
Model = TypeVar("Model", bound=nn.Module)


def is_sharded(config: RunConfig) -> bool:
    """Say whether no process holds the whole model; a single one always does."""
    return config.sharding == "full" and collectives.size() > 1


@contextmanager
def sharded(model: Model, config: RunConfig, device: torch.device) -> Iterator[Model]:
    """Yield the `LanguageModel` to train on `device`, or a sharded copy if that is configured.

    In the end `model`, which stays where it is and is whole in every process, gets the trained
    weights of the copy.

    Raises:
        ConfigError: a tied head, whose matrix would have to be in two units.
    """
    if not is_sharded(config):
        yield model.to(device)
        return
    if cast(Any, model).config.tie_weights:
        raise ConfigError(
            "run.sharding = full cannot divide a head that is tied to the embedding: train with "
            "model.tie_weights = false, or with run.sharding = none"
        )
    divided = copy.deepcopy(model)
    _divide(divided, device)
    yield divided
    with torch.no_grad():
        for parameter, trained in zip(model.parameters(), divided.parameters(), strict=True):
            parameter.copy_(full_tensor(trained.detach()))


def _divide(model: Any, device: torch.device) -> None:  # noqa: ANN401
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Of outputs that are views, for those who change them in place: nobody does here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (collectives.size(),))
    units: list[Any] = [model.blocks, model.embedding, *model.token_output]
    for unit in units:
        # Gathered for a reading alone: weights that are changed in place are read anew.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        if device.type == "cpu":
            unit.set_force_sum_reduction_for_comms(True)  # torch 2.8: gloo's mean is a sum
        unit.within = MethodType(_call, unit)
        register_fsdp_forward_method(unit, "within")
    for head in model.token_output:
        register_fsdp_forward_method(head, "gate_of")
    for whole in (model.memory, model.bigrams):  # which are counted, not trained
        if whole is not None:
            whole.to(device)


def _call(unit: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:  # noqa: ANN401
    return function(*inputs)


def within(module: nn.Module, function: Callable[..., Result], *inputs: Any) -> Result:  # noqa: ANN401
    """Return `function(*inputs)` while `module` has all of its parameters.

    For functions that read parameters rather than call the module, which is a unit or whole.
    """
    inside = _within_of(module)
    return function(*inputs) if inside is None else inside(function, *inputs)


def is_divided(module: nn.Module) -> bool:
    """Say whether no process holds all parameters of `module` for long."""
    return _within_of(module) is not None


def _within_of(module: nn.Module) -> Callable[..., Any] | None:
    """Return what `_divide` gave to units; torch's own class for them takes a second to import."""
    return module.__dict__.get("within")
