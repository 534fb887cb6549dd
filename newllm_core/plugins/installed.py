"""What installed distributions register: one that is damaged hides no other."""

import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions

from newllm_core.plugins.guard import one_line


@dataclass(frozen=True)
class Installed:
    """What the files of a distribution say of it, "" where they say nothing.

    Attributes:
        name: of the distribution.
        version: as text.
        about: its summary.
        entries: what it registers, of every group.
        problem: why `entries` cannot be read, on one line, with the place.
    """

    name: str
    version: str
    about: str
    entries: tuple[EntryPoint, ...] = ()
    problem: str = ""


def installed(group: str) -> list[tuple[EntryPoint, Installed]]:
    """Return the entry points of `group`; of a distribution that is there twice, the first one's.

    `importlib.metadata.entry_points` raises for all if one distribution cannot be read.
    """
    found: list[tuple[EntryPoint, Installed]] = []
    seen = set()
    for distribution in _all():
        chosen = [(entry, distribution) for entry in distribution.entries if entry.group == group]
        name = normal(distribution.name) if chosen else ""
        if chosen and (not name or name not in seen):
            found += chosen
            seen.add(name)
    return found


def damaged() -> list[str]:
    """Return one line for each distribution whose entry points cannot be read."""
    return [distribution.problem for distribution in _all() if distribution.problem]


def normal(name: str) -> str:
    """Return a name as packaging compares names: case and kinds of dashes make no difference."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _all() -> list[Installed]:
    return _read(tuple((path, _changed(path)) for path in sys.path))


def _changed(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)  # a command asks a dozen times, and there may be hundreds of distributions
def _read(places: tuple[tuple[str, int], ...]) -> list[Installed]:
    return [_installed(distribution) for distribution in distributions()]


def _installed(distribution: Distribution) -> Installed:
    try:
        entries = tuple(distribution.entry_points)
    except Exception as error:  # text that is none, lines that are none
        name, *_ = _facts(distribution)
        place = getattr(distribution, "_path", None) or name or "a distribution"
        problem = (
            f"{place} cannot be read, whatever plugins it has are missing "
            f"({one_line(error)}): install it again or remove it"
        )
        return Installed("", "", "", problem=problem)
    # Most register nothing: their metadata need not be parsed.
    return Installed(*(_facts(distribution) if entries else ("", "", "")), entries)


def _facts(distribution: Distribution) -> tuple[str, str, str]:
    try:
        metadata = distribution.metadata
        return metadata["Name"] or "", metadata["Version"] or "", metadata["Summary"] or ""
    except Exception:  # an unfinished installation has no metadata
        return "", "", ""
