"""Text that people type into a shell, where a line feed is hard to type."""

import re

from newllm_core.errors import ConfigError

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def unescape(text: str, where: str) -> str:
    r"""`text` with `\n`, `\r`, `\t` and `\\` written out; `where` names the setting in errors.

    Raises:
        ConfigError: it is empty, or has another escape.
    """
    if not text:
        raise ConfigError(rf"{where} is empty: give text such as \n\n")
    unknown = re.search(r"\\([^nrt\\]|$)", text.replace("\\\\", ""))
    if unknown:
        raise ConfigError(f"{where} has {unknown.group()!r}: the escapes are \\n \\r \\t \\\\")
    return re.sub(r"\\([nrt\\])", lambda match: _ESCAPES[match.group(1)], text)
