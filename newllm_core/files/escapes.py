"""Text that people type into a shell, where a line feed is hard to type."""

import re
from typing import Any

from newllm_core.errors import ConfigError

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def unescape(text: str, where: str) -> str:
    r"""Return `text` with `\n`, `\r`, `\t` and `\\` written out.

    `ConfigError`, which names the setting `where`, if it is empty or has another escape.
    """
    if not text:
        raise ConfigError(rf"{where} is empty: give text such as \n\n")
    unknown = re.search(r"\\([^nrt\\]|$)", text.replace("\\\\", ""))
    if unknown:
        raise ConfigError(f"{where} has {unknown.group()!r}: the escapes are \\n \\r \\t \\\\")
    return re.sub(r"\\([nrt\\])", lambda match: _ESCAPES[match.group(1)], text)


def escaped(value: Any) -> Any:  # noqa: ANN401 - any setting
    """Return a setting, or a mapping of them, fit to be written: names of files are bytes."""
    if isinstance(value, dict):
        return {key: escaped(inner) for key, inner in value.items()}
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
