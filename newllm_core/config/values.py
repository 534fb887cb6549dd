"""Values of settings: text and TOML become the types of their fields."""

import difflib
import json
import os
import types
import typing
from pathlib import Path
from typing import Any

from newllm_core.errors import ConfigError, one_line
from newllm_core.files.strict_json import INTEGER_BITS, parse_json

LONGEST_VALUE = 80
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def shown(value: object) -> str:
    """Return a value that somebody gave, short enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    # What TOML reads as a date is not shown as Python would write it.
    return one_line(repr(value) if isinstance(value, str) else str(value), LONGEST_VALUE)


def text_of(value: Any) -> str:  # noqa: ANN401
    """Write a value as one gives it with `--set`, so that flags, files and keywords compare."""
    if isinstance(value, list | tuple):
        parts = list(map(str, value))
        is_plain = not any("," in part or part.startswith("[") for part in parts)
        return ",".join(parts) if is_plain else json.dumps(parts)
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def unknown(what: str, name: str, known: list[str]) -> str:
    """Word that `name` is none of the `known`, with a near one if there is any."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what}{hint} (known: {', '.join(known)})"


def plain(value: Any) -> Any:  # noqa: ANN401 - what Python's users give
    """Return what a file could say: numbers and arrays of numpy and torch, and paths, as such."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value


def path_of(given: str | os.PathLike[str], what: str) -> Path:
    """Return a path that somebody gave; `ConfigError` if it is none."""
    try:
        return Path(given)
    except TypeError as error:
        raise ConfigError(f"{what} is {shown(given)}: expected a path") from error


def without_none(hint: Any) -> Any:  # noqa: ANN401 - any annotation
    """Return the type that a value has unless it is None."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def convert(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401 - any TOML value, any annotation
    """Return `value` as the type `hint`; text is parsed, other values must already fit."""
    if isinstance(value, int) and abs(value) >> INTEGER_BITS:
        raise ConfigError(f"{where} is a number of more than {INTEGER_BITS} bits")
    if (kind := without_none(hint)) is not hint:
        # A file may be named null; an empty name is none.
        nothing = ("",) if kind is str else ("none", "null")
        if value is None or (isinstance(value, str) and value.lower() in nothing):
            return None
        return convert(value, kind, where)
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if isinstance(value, str):
            value = _listed(value, element, where)
        if not isinstance(value, list | tuple):
            example = "a,b" if element is str else "1,1"
            raise ConfigError(f"{where} is {shown(value)}: give a list such as {example}")
        return tuple(convert(part, element, where) for part in value)
    if isinstance(value, str) and hint is not str:
        parsed = _parse(value.strip(), hint, where)
        return convert(parsed, int, where) if hint is int else parsed
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(value, hint, where)
    return value


def _listed(text: str, element: type[Any], where: str) -> Any:  # noqa: ANN401 - any JSON value
    if element is not str:
        text = text.strip("[]() ")
    elif text.startswith("["):  # texts may hold commas and brackets: what is a list must say so
        try:
            return parse_json(text)
        except ValueError as error:
            raise ConfigError(f'{where} is {shown(text)}: write a list as ["a", "b"]') from error
    return [part for part in text.split(",") if part]


def _parse(text: str, hint: type[Any], where: str) -> Any:  # noqa: ANN401
    if hint is bool:
        truth = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in truth:
            raise _wrong(text, hint, where)
        return truth[text.lower()]
    try:
        return hint(text.replace("_", ""))
    except ValueError as error:
        raise _wrong(text, hint, where) from error


def _wrong(value: object, hint: type[Any], where: str) -> ConfigError:
    return ConfigError(f"{where} is {shown(value)}: expected {WORDS[hint]}")
