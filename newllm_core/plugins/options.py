"""The options of a plugin: a dataclass whose fields a user can set as text."""

import dataclasses
import json
import types
import typing
from typing import Any

from newllm_core.config.option import check_bounds
from newllm_core.errors import UserError
from newllm_core.plugins.guard import one_line
from newllm_core.settings import make_section

SIMPLE_TYPES = (bool, int, float, str)
ALLOWED = "bool, int, float, str, a tuple[...] of one of them, or one of these | None"


def options_problem(options: Any) -> str | None:  # noqa: ANN401 - whatever a plugin put there
    """Return what is wrong with the `Options` of a plugin, or None."""
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        name = getattr(options, "__name__", "Options")
        return f"has Options that are no dataclass: add @dataclass(frozen=True) above class {name}"
    try:
        hints = typing.get_type_hints(options)
    except Exception as error:  # an annotation may name anything
        return f"has Options whose annotations cannot be read: {error}"
    for spec in dataclasses.fields(options):
        if not _allowed(hints[spec.name]):
            return (
                f"has the option {spec.name!r} of type {type_name(hints[spec.name])}: use {ALLOWED}"
            )
        if spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            return f"has the option {spec.name!r} without a default"
        if not spec.init:
            return f"has the option {spec.name!r} that nobody can give: leave out init=False"
    try:
        made = options()
        check_bounds(made, "option")
    except UserError as error:
        return f"has a default out of its bounds: {error}"
    except Exception as error:  # a dataclass may check itself
        return f"has Options that cannot be made of their defaults: {one_line(error)}"
    return saving_problem(made)


def saving_problem(options: Any) -> str | None:  # noqa: ANN401 - an instance of its own class
    """Return how `options` are not the same after they were saved and read again, or None."""
    try:
        saved = json.loads(json.dumps(dataclasses.asdict(options)))
        again = make_section(type(options), "option", saved)
    except Exception as error:  # whatever they hold, and whatever checks them
        return f"has options that cannot be read once they are saved: {one_line(error)}"
    for name, value in dataclasses.asdict(options).items():
        if (other := getattr(again, name)) != value:
            return (
                f"has options that change when they are saved: {name} is {value!r}, and then "
                f"{other!r}; keep it as it is given, and compute with it elsewhere"
            )
    return None


def describe_options(options: type[Any]) -> list[dict[str, Any]]:
    """Return name, type, default, help, bounds and choices of every option, fit for JSON."""
    hints = typing.get_type_hints(options)
    defaults = options()
    return [
        {
            "name": spec.name,
            "type": type_name(hints[spec.name]),
            "default": getattr(defaults, spec.name),
            "help": str(spec.metadata.get("help", "")),
            "low": spec.metadata.get("low"),
            "high": spec.metadata.get("high"),
            "choices": list(spec.metadata.get("choices") or ()),
        }
        for spec in dataclasses.fields(options)
    ]


def type_name(hint: Any) -> str:  # noqa: ANN401
    """Return an annotation as one writes it."""
    return hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")


def _allowed(hint: Any) -> bool:  # noqa: ANN401
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return len(parts) == 1 and _allowed(parts[0])
    if typing.get_origin(hint) is tuple:
        element, *rest = typing.get_args(hint)
        return element in SIMPLE_TYPES and rest == [Ellipsis]
    return hint in SIMPLE_TYPES
