"""One registered name: who has it, and where it is."""

import os
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path

from newllm_core.plugins.files import module_name
from newllm_core.plugins.guard import one_line, place_in
from newllm_core.plugins.installed import Installed, normal

OWN_DISTRIBUTION = "newllm"
ALLOW_LIST = "NEWLLM_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """One registered name, not yet imported.

    Attributes:
        name: what users ask for.
        target: `module:attribute`, or `FILE.py:attribute`.
        distribution: who installed it; "file" for one of a `--plugin` file.
        version: of the distribution, or of the file's content.
        about: the distribution in its own words.
        file: the `--plugin` file.
    """

    name: str
    target: str
    distribution: str
    version: str
    about: str = field(default="", compare=False)
    file: Path | None = None

    @property
    def origin(self) -> str:
        """Return where the plugin comes from, for messages."""
        return f"{self.distribution} {self.version} ({self.target})"

    def raised(self, error: BaseException) -> str:
        """Return what its code raised, on one line, and where in its code."""
        module = module_name(self.file) if self.file else self.target.partition(":")[0]
        place = place_in(module, error)
        return one_line(error) + (f" ({place}; NEWLLM_DEBUG=1 shows all)" if place else "")

    @property
    def is_own(self) -> bool:
        """Say whether it is part of newllm."""
        return self.distribution == OWN_DISTRIBUTION

    @property
    def is_allowed(self) -> bool:
        """Say whether `NEWLLM_PLUGINS` lets it be used; a file was asked for in so many words."""
        listed = os.environ.get(ALLOW_LIST)
        if listed is None or self.is_own or self.file is not None:
            return True
        names = {normal(part) for part in listed.split(",")}
        return bool({normal(self.name), normal(self.distribution)} & names)


def plugin_of(entry: EntryPoint, distribution: Installed) -> Plugin:
    """Return what an entry point and its distribution say, without importing it."""
    return Plugin(
        entry.name,
        entry.value.partition("[")[0].replace(" ", ""),
        distribution=distribution.name or "unknown",
        version=distribution.version or "?",
        about=distribution.about,
    )
