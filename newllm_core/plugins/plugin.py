"""One registered name: who has it, where it is, and importing it."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from newllm_core.errors import PluginError
from newllm_core.plugins.guard import one_line, place_in, slow_notice, stdout_to_stderr

OWN_DISTRIBUTION = "newllm"
ALLOW_LIST = "NEWLLM_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """One registered name, not yet imported.

    Attributes:
        kind: of its registry.
        name: what users ask for.
        target: `module:attribute`, or `FILE.py:attribute`.
        distribution: who installed it; "file" for one of a `--plugin` file.
        version: of the distribution, or of the file's content.
        about: the distribution in its own words; of a file, the first line of the docstring.
        file: the `--plugin` file, absolute.
        line: of the class statement there.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    about: str = field(default="", compare=False)
    file: Path | None = None
    line: int = 0

    @property
    def origin(self) -> str:
        """Return where the plugin comes from, for messages."""
        return f"{self.distribution} {self.version} ({self.target})"

    def named(self) -> dict[str, str]:
        """Return what it is called and who has it, fit for JSON."""
        fields = ("name", "kind", "distribution", "version", "target")
        return {field: getattr(self, field) for field in fields}

    def raised(self, error: BaseException) -> str:
        """Return what its code raised, on one line, and where in its code."""
        module = _module_name(self.file) if self.file else self.target.partition(":")[0]
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

    @contextmanager
    def importing(self, what: str) -> Iterator[None]:
        """Let the body import it; what that raises, SystemExit too, is one line about `what`."""
        try:
            with slow_notice(what), stdout_to_stderr():
                yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PluginError(f"{what} cannot be imported: {self.raised(error)}") from error

    def imported(self) -> Any:  # noqa: ANN401 - whatever is there
        """Import what `target` says."""
        if self.file:
            return getattr(import_file(self.file), self.target.rpartition(":")[2])
        return resolve_name(self.target if ":" in self.target else f"{self.target}:")


# The plugins of the files that `files.use_file` was called with in this process, in that order.
FROM_FILES: dict[Path, list[Plugin]] = {}


def normal(name: str) -> str:
    """Return a name as packaging compares names: case and kinds of dashes make no difference."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def kebab_case(name: str) -> str:
    """Return `SpreadOut` as `spread-out`, `SIGRegFast` as `sig-reg-fast`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def import_file(path: Path, source: bytes | None = None) -> ModuleType:
    """Import a file as a module of its own, once per process; anew if its `source` is given."""
    name = _module_name(path)
    if source is None and name in sys.modules:
        return sys.modules[name]
    source = path.read_bytes() if source is None else source
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} does not end in .py")
    module = module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    sys.modules[name] = module
    try:
        # The loader would take bytecode of another content of the same second and length.
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: Path) -> str:
    """Return what a file is called as a module."""
    digest = hashlib.sha256(str(path).encode("utf-8")).hexdigest()[:8]
    return f"newllm_plugin_file_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{digest}"
