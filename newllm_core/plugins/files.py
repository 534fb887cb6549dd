"""Plugins from a file given with `--plugin FILE.py`: a first try without packaging.

Every public class of the file that extends `Cell`, `Objective`, `Regularizer` or `DataSource` (or
one of newllm's own) is a plugin under the kebab-case form of its name: `SpreadOut` is
`spread-out`. The file is imported to find them.
"""

import hashlib
from pathlib import Path
from types import ModuleType

from newllm_core.config.values import path_of
from newllm_core.errors import InputError, PluginError, reason
from newllm_core.files.from_strangers import regular_file
from newllm_core.plugins.locate import imported_source
from newllm_core.plugins.plugin import FROM_FILES, Plugin, import_file, kebab_case
from newllm_core.plugins.registry import REGISTRIES


def use_file(path: Path) -> list[Plugin]:
    """Import `path` as it is now, and make its plugins known to the registries.

    Raises:
        ConfigError: `path` is none.
        InputError: there is no such file, or it cannot be read.
        PluginError: it cannot be imported, or no plugin is in it.
    """
    path = regular_file(path_of(path, "the plugin"), "plugin").absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read --plugin {path}: {reason(error)}") from error
    version = "sha256:" + hashlib.sha256(source).hexdigest()[:12]
    # Plugins of an earlier content are gone, also if this one is broken.
    FROM_FILES.pop(path, None)
    whole = Plugin("file", path.stem, str(path), "file", version, file=path)
    with whole.importing(f"--plugin {path}"):
        module = import_file(path, source)
    found = []
    for name, part in vars(module).items():
        if kind := _kind(name, part, module):
            written = imported_source(part)
            found.append(
                Plugin(
                    kind,
                    kebab_case(name),
                    f"{path}:{name}",
                    distribution="file",
                    version=version,
                    about=written.summary,
                    file=path,
                    line=written.line,
                )
            )
    if not found and not callable(getattr(module, "step", None)):
        bases = ", ".join(each.base.partition(":")[2] for each in REGISTRIES if each.base)
        raise PluginError(
            f"--plugin {path} has no plugin: it needs a public class that extends one of {bases}; "
            "or a function step that analyze examines"
        )
    FROM_FILES[path] = found
    return found


def step_files() -> list[Path]:
    """Return the files given that have no plugin but a function `step`."""
    return [path for path, plugins in FROM_FILES.items() if not plugins]


def _kind(name: str, part: object, module: ModuleType) -> str | None:
    """Return the kind of a plugin; None for what is imported, private or has another name too."""
    if not isinstance(part, type) or part.__module__ != module.__name__:
        return None
    if name.startswith("_") or name != part.__name__:
        return None
    # By name: the bases of other kinds need not be imported.
    bases = {f"{base.__module__}:{base.__name__}" for base in part.__mro__}
    return next((each.kind for each in REGISTRIES if each.base in bases), None)
