"""What installed distributions register: one that is damaged hides no other."""

import re
from importlib.metadata import Distribution, EntryPoint, distributions

from newllm_core.plugins.guard import one_line


def installed(group: str) -> list[EntryPoint]:
    """Return the entry points of `group`; of a distribution that is there twice, the first one's.

    `importlib.metadata.entry_points` raises for all if one distribution cannot be read.
    """
    found: list[EntryPoint] = []
    seen = set()
    for distribution in distributions():
        entries = _entries(distribution)
        chosen = [] if isinstance(entries, Exception) else [e for e in entries if e.group == group]
        name = normal(_name(distribution)) if chosen else ""
        if chosen and (not name or name not in seen):
            found += chosen
            seen.add(name)
    return found


def damaged() -> list[str]:
    """Return one line for each distribution whose entry points cannot be read."""
    lines = []
    for distribution in distributions():
        entries = _entries(distribution)
        if isinstance(entries, Exception):
            place = getattr(distribution, "_path", None) or _name(distribution) or "a distribution"
            lines.append(
                f"{place} cannot be read, whatever plugins it has are missing "
                f"({one_line(entries)}): install it again or remove it"
            )
    return lines


def normal(name: str) -> str:
    """Return a name as packaging compares names: case and kinds of dashes make no difference."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _entries(distribution: Distribution) -> list[EntryPoint] | Exception:
    try:
        return list(distribution.entry_points)
    except Exception as error:  # text that is none, lines that are none
        return error


def _name(distribution: Distribution) -> str:
    try:
        return str(distribution.metadata["Name"] or "")
    except Exception:  # an unfinished installation has no metadata
        return ""
