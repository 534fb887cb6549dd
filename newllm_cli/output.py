"""Results on stdout: tables for people, or one JSON document."""

import json
import sys
from typing import Any

from rich.console import Console

NARROWEST = 80


def console() -> Console:
    """Where results go. Piped output has no colour and no wrapping narrower than 80 columns."""
    if sys.stdout.isatty():
        return Console()
    return Console(width=max(NARROWEST, Console().width), no_color=True, highlight=False)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document; values that are no numbers would be a bug."""
    # Where letters cannot be shown "?" would stand for them.
    escaped = "utf" not in (sys.stdout.encoding or "utf").lower()
    print(json.dumps(document, indent=1, ensure_ascii=escaped, allow_nan=False))


def write_through(text: str) -> None:
    """Print a piece of text at once, as it is."""
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
