"""Which fast form takes the place of a plain one, and where; none with `run.kernels = off`.

A form has the signature of its plain twin and gives the same values and gradients within rounding.
It stays only while it makes a default or a preset at least 1.15 times as fast (`python -m
benchmarks.kernels`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from newllm_core.kernels import cross_entropy

Function = TypeVar("Function", bound=Callable[..., Any])


class Form(NamedTuple):
    """One fast form.

    Attributes:
        operation: what it computes, as `choose` is asked for it.
        devices: types of the devices it is for.
        dtypes: of what it is given.
        function: the form.
    """

    operation: str
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    function: Callable[..., Any]


FORMS = [
    # No logits are kept, and their gradient takes their place.
    Form("cross-entropy", ("cpu", "cuda", "mps"), (torch.float32,), cross_entropy.cross_entropy)
]


def choose(operation: str, plain: Function, like: Tensor, *, setting: str) -> Function:
    """Return the fast form of an operation on tensors `like` one, or `plain`.

    `setting` is `run.kernels`.
    """
    for form in _usable(setting, like.device, like.dtype):
        if form.operation == operation:
            return cast(Function, form.function)
    return plain


def describe(*, setting: str, device: torch.device) -> str:
    """Say which forms are used in float32, for a log."""
    used = ", ".join(form.operation for form in _usable(setting, device, torch.float32))
    return f"kernels {setting}: " + (f"fast {used}" if used else "every form is plain")


def _usable(setting: str, device: torch.device, dtype: torch.dtype) -> list[Form]:
    return [
        form
        for form in FORMS
        if setting != "off" and device.type in form.devices and dtype in form.dtypes
    ]
