"""Results on stdout: tables for people, or one JSON document."""

import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

NARROWEST = 80


def console() -> Console:
    """Make the console of results; piped ones have no colour, and at least 80 columns."""
    if sys.stdout.isatty():
        return plain_console()
    width = max(NARROWEST, Console().width)
    return plain_console(width=width, no_color=True, highlight=False)


def plain_console(**options: Any) -> Console:  # noqa: ANN401 - what rich takes
    """Make a console that shows text as it is: brackets and colons in names mean nothing."""
    return Console(markup=False, emoji=False, **options)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document; values that are no numbers would be a bug."""
    # Where letters cannot be shown "?" would stand for them.
    escaped = "utf" not in (sys.stdout.encoding or "utf").lower()
    print(json.dumps(document, indent=1, ensure_ascii=escaped, allow_nan=False))


def show(
    document: dict[str, Any], render: Callable[[dict[str, Any], Console], object], *, json: bool
) -> None:
    """Print a result as JSON, or as `render` draws it."""
    if json:
        print_json(document)
    else:
        render(document, console())
