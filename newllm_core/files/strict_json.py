"""JSON without what JSON does not have, and without numbers that nothing can hold."""

import json
import math
from collections.abc import Mapping
from typing import Any

INTEGER_BITS = 63
MOST_NESTED = 32


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of `text`; `ValueError` unless it is JSON that anybody can hold.

    Numbers are finite, integers fit 64 bits, and nesting has an end.
    """
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _limit_depth(value, MOST_NESTED)
    return value


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return `value` with every number that is not finite replaced by None, as JSON wants it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def is_number(value: object) -> bool:
    """Say whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _limit_depth(value: object, left: int) -> None:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if left == 0 and inner:
        raise ValueError("it is nested too deeply")
    for part in inner:
        if isinstance(part, dict | list):
            _limit_depth(part, left - 1)


def _integer(digits: str) -> int:
    # By length first: the time to read a number grows with the square of its digits.
    if len(digits) > 20 or not -(1 << INTEGER_BITS) <= int(digits) < 1 << INTEGER_BITS:
        raise ValueError(f"the number {digits[:20]}... does not fit 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
