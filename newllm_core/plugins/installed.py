"""What installed distributions register: one that is damaged hides no other."""

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions

from newllm_core.plugins.guard import one_line
from newllm_core.plugins.plugin import Plugin, normal


@dataclass(frozen=True)
class _Installed:
    """What the files of a distribution say, "" where nothing; or why they cannot be read."""

    name: str
    version: str
    about: str
    entries: tuple[EntryPoint, ...] = ()
    problem: str = ""


def installed(kind: str, group: str) -> list[Plugin]:
    """Return the plugins of `group`; of a distribution that is there twice, the first one's.

    `importlib.metadata.entry_points` raises for all if one distribution cannot be read.
    """
    found: list[Plugin] = []
    seen = set()
    for distribution in _all():
        chosen = [entry for entry in distribution.entries if entry.group == group]
        name = normal(distribution.name)
        if not chosen or name in seen:
            continue
        seen |= {name} - {""}
        found += [
            Plugin(
                kind,
                entry.name,
                entry.value.partition("[")[0].replace(" ", ""),
                distribution=distribution.name or "unknown",
                version=distribution.version or "?",
                about=distribution.about,
            )
            for entry in chosen
        ]
    return found


def damaged() -> list[str]:
    """Return one line for each distribution whose entry points cannot be read."""
    return [distribution.problem for distribution in _all() if distribution.problem]


def _all() -> list[_Installed]:
    return _read(tuple((path, _changed(path)) for path in sys.path))


def _changed(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)  # a command asks a dozen times, and there may be hundreds of distributions
def _read(places: tuple[tuple[str, int], ...]) -> list[_Installed]:
    return [_installed(distribution) for distribution in distributions()]


def _installed(distribution: Distribution) -> _Installed:
    try:
        entries = tuple(distribution.entry_points)
    except Exception as error:  # text that is none, lines that are none
        name, *_ = _facts(distribution)
        place = getattr(distribution, "_path", None) or name or "a distribution"
        problem = (
            f"{place} cannot be read, whatever plugins it has are missing "
            f"({one_line(error)}): install it again or remove it"
        )
        return _Installed("", "", "", problem=problem)
    # Most register nothing: their metadata need not be parsed.
    return _Installed(*(_facts(distribution) if entries else ("", "", "")), entries)


def _facts(distribution: Distribution) -> tuple[str, str, str]:
    try:
        metadata = distribution.metadata
        return metadata["Name"] or "", metadata["Version"] or "", metadata["Summary"] or ""
    except Exception:  # an unfinished installation has no metadata
        return "", "", ""
