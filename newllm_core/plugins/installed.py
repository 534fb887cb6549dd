"""What installed distributions register: one that is damaged hides no other."""

import os
import sys
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions

from newllm_core.plugins.guard import one_line
from newllm_core.plugins.plugin import Plugin, normal

# Name, version and summary of a distribution, "" for what it does not say, and what it registers.
Registered = tuple[tuple[str, str, str], list[EntryPoint]]


def installed(kind: str, group: str) -> list[Plugin]:
    """Return the plugins of `group`; of a distribution that is there twice, the first one's.

    `importlib.metadata.entry_points` raises for all if one distribution cannot be read.
    """
    found: list[Plugin] = []
    seen = set()
    for (name, version, about), entries in _all()[0]:
        chosen = [entry for entry in entries if entry.group == group]
        if not chosen or normal(name) in seen:
            continue
        seen |= {normal(name)} - {""}
        found += [
            Plugin(
                kind,
                entry.name,
                entry.value.partition("[")[0].replace(" ", ""),
                distribution=name or "unknown",
                version=version or "?",
                about=about,
            )
            for entry in chosen
        ]
    return found


def damaged() -> list[str]:
    """Return one line for each distribution whose entry points cannot be read."""
    return _all()[1]


def _all() -> tuple[list[Registered], list[str]]:
    return _read(tuple((path, _changed(path)) for path in sys.path))


def _changed(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)  # a command asks a dozen times, and there may be hundreds of distributions
def _read(places: tuple[tuple[str, int], ...]) -> tuple[list[Registered], list[str]]:
    found: list[Registered] = []
    problems = []
    for distribution in distributions():
        try:
            entries = [e for e in distribution.entry_points if e.group.startswith("newllm.")]
        except Exception as error:  # text that is none, lines that are none
            place = getattr(distribution, "_path", None) or _facts(distribution)[0]
            problems.append(
                f"{place or 'a distribution'} cannot be read, whatever plugins it has are missing "
                f"({one_line(error)}): install it again or remove it"
            )
            continue
        if entries:  # most register nothing of ours: their metadata need not be parsed
            found.append((_facts(distribution), entries))
    return found, problems


def _facts(distribution: Distribution) -> tuple[str, str, str]:
    try:
        metadata = distribution.metadata
        return metadata["Name"] or "", metadata["Version"] or "", metadata["Summary"] or ""
    except Exception:  # an unfinished installation has no metadata
        return "", "", ""
