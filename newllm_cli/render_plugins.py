"""Tables of `newllm plugins`."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from newllm_core.config.values import text_of
from newllm_core.plugins.listing import BROKEN, CLASH, IGNORED, NOT_ALLOWED, OK, Entry

BAD = "bold red"
COLOURS = {OK: "green", BROKEN: BAD, CLASH: BAD, IGNORED: "yellow", NOT_ALLOWED: "dim"}


def render_plugins(entries: Sequence[Entry], console: Console) -> None:
    """Show one table per kind."""
    for kind, group in groupby(entries, key=lambda entry: entry.kind):
        table = Table(title=f"{kind}s", title_justify="left", box=box.SIMPLE_HEAD, expand=True)
        for heading in ("name", "from", "status", "description"):
            table.add_column(
                heading, overflow="fold", ratio=1 if heading == "description" else None
            )
        for entry in group:
            table.add_row(
                entry.name,
                f"{entry.distribution} {entry.version}",
                Text(entry.status, style=COLOURS.get(entry.status, "")),
                Text(entry.description),
            )
        console.print(table)
    console.print("more: newllm plugins show NAME", soft_wrap=True)


def render_plugin(details: Mapping[str, Any], console: Console) -> None:
    """Show one plugin with its options."""
    origin = f"{details['distribution']} {details['version']} ({details['target']})"
    lines = [
        f"{details['name']}: {details['kind']} of {origin}",
        details["description"],
        f"{details['file']}:{details['line']}",
    ]
    if details["default_weight"] is not None:
        lines.append(f"weight unless --dist-reg-weight is given: {details['default_weight']:g}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    for option in details["options"]:
        setting = f"{details['section']}.{option['name']}={text_of(option['default'])}"
        console.print(f"\n  {setting}   {_values(option)}", soft_wrap=True)
        if option["help"]:
            console.print(f"      {option['help']}", soft_wrap=True)
    if details["section"] and not details["options"]:
        console.print("no options")
    console.print(f"\nexample: {details['example']}", soft_wrap=True)


def _values(option: Mapping[str, Any]) -> str:
    """Show what an option can be."""
    if option["choices"]:
        return "|".join(map(str, option["choices"]))
    bounds = (("low", "at least"), ("high", "at most"))
    parts = [f"{words} {option[key]:g}" for key, words in bounds if option[key] is not None]
    return ", ".join([option["type"], *parts])
