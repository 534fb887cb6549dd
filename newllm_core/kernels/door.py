"""Which fast form takes the place of a plain one, and where.

A form has the signature of its plain twin and gives the same values and gradients within rounding.
It stays only while it makes a default or a preset at least 1.15 times as fast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Form:
    """One fast form.

    Attributes:
        operation: what it computes, as `choose` is asked for it.
        device: type of the device it is for.
        dtypes: of what it is given.
        target: `module:function` of the form.
        available: `module:function` that says whether it can be used here.
        why: what it saves, in a few words.
    """

    operation: str
    device: str
    dtypes: tuple[torch.dtype, ...]
    target: str
    available: str
    why: str


FORMS = [
    Form(
        operation="cross-entropy",
        device="cpu",
        dtypes=(torch.float32, torch.bfloat16),
        target="newllm_core.kernels.cross_entropy:cross_entropy",
        available="newllm_core.kernels.compiled:is_usable",
        why="no logits are kept; softmax and its gradient are one compiled loop",
    ),
]


def find(operation: str, *, setting: str, device: torch.device, dtype: torch.dtype) -> Form | None:
    """Find the fast form of an operation; None where the plain one is used.

    Args:
        operation: `Form.operation`.
        setting: `run.kernels`.
        device: where it is computed.
        dtype: of what is given.
    """
    if setting == "off":
        return None
    return next(
        (
            form
            for form in FORMS
            if (form.operation, form.device) == (operation, device.type)
            and dtype in form.dtypes
            and _named(form.available)()
        ),
        None,
    )


def choose(
    operation: str, plain: Function, *, setting: str, device: torch.device, dtype: torch.dtype
) -> Function:
    """Return the fast form of an operation, or `plain`; arguments are those of `find`."""
    form = find(operation, setting=setting, device=device, dtype=dtype)
    return plain if form is None else cast(Function, _named(form.target))


def describe(*, setting: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Say which forms are used, for a log."""
    names = dict.fromkeys(form.operation for form in FORMS)
    used = [
        name
        for name in names
        if find(name, setting=setting, device=device, dtype=dtype) is not None
    ]
    return f"kernels {setting}: " + (f"fast {', '.join(used)}" if used else "every form is plain")


def _named(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
