"""A setting: its type, only default, help text and bounds."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from newllm_core.errors import ConfigError


def option(
    default: Any,  # noqa: ANN401 - the field's own annotation says the type
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:  # noqa: ANN401
    """Return a dataclass field with its documentation and bounds (inclusive).

    Args:
        default: the only place where this default is written.
        help: one sentence for `--help` and the documentation.
        low: smallest value allowed.
        high: largest value allowed.
        choices: the values allowed (of a tuple, the parts), where they are a closed set.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


def share(default: Any, help: str) -> Any:  # noqa: ANN401 - as `option`
    """Return the field of a number from 0 to 1."""
    return option(default, help, low=0, high=1)


def check_bounds(section: Any, name: str) -> None:  # noqa: ANN401 - any dataclass made of `option`s
    """Raise `ConfigError` for the first field of `section` outside its bounds or choices."""
    for spec in fields(section):
        value = getattr(section, spec.name)
        low, high = spec.metadata.get("low"), spec.metadata.get("high")
        choices = spec.metadata.get("choices")
        parts = value if isinstance(value, tuple) else () if value is None else (value,)
        if choices and any(part not in choices for part in parts):
            raise ConfigError(
                f"{name}.{spec.name} is {value!r}: choose one of {', '.join(map(str, choices))}"
            )
        for number in parts:
            if isinstance(number, int | float) and not isinstance(number, bool):
                check_number(number, f"{name}.{spec.name}", low, high)


def check_number(number: float, where: str, low: float | None, high: float | None) -> None:
    """Raise `ConfigError` if a number is not finite or outside its bounds."""
    if not math.isfinite(number):
        raise ConfigError(f"{where} is {number}: it must be finite")
    if low is not None and number < low:
        raise ConfigError(f"{where} is {number}: at least {low:g}")
    if high is not None and number > high:
        raise ConfigError(f"{where} is {number}: at most {high:g}")


class Section:
    """The section `name` of the configuration; its values are checked when it is made."""

    SECTION: ClassVar[str]
    # Other keys that a section takes, and which of its fields each stands for.
    SHORTHANDS: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, name: str) -> None:
        cls.SECTION = name

    def __post_init__(self) -> None:
        check_bounds(self, self.SECTION)


@dataclass(frozen=True)
class NoOptions:
    """The options of a plugin that has none."""
