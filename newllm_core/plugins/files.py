"""Plugins from a file given with `--plugin FILE.py`: a first try without packaging.

Every public class of the file that extends `Cell`, `Objective`, `Regularizer` or `DataSource` (or
one of newllm's own) is a plugin under the kebab-case form of its name: `SpreadOut` is
`spread-out`. The file is read to find them, and imported only when one is used.
"""

import ast
import hashlib
import re
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from newllm_core.errors import InputError, PluginError, reason
from newllm_core.files.from_strangers import regular_file
from newllm_core.plugins.kinds import KINDS
from newllm_core.plugins.locate import first_line

# Where newllm's own classes are, and the base classes themselves, each with its kind.
PACKAGES = {kind.package: kind.name for kind in KINDS}
BASES = {kind.base.partition(":")[2]: kind.name for kind in KINDS}


@dataclass(frozen=True)
class FileClass:
    """One plugin of a file.

    Attributes:
        path: the file, absolute.
        version: starts of its content's SHA-256.
        kind: which registry it belongs to.
        attribute: name of the class.
        line: of the class statement.
        summary: first line of its docstring.
    """

    path: Path
    version: str
    kind: str
    attribute: str
    line: int
    summary: str

    @property
    def name(self) -> str:
        """Return the name it is asked for by."""
        return kebab_case(self.attribute)


# What `use_file` was called with in this process, in that order.
_used: dict[Path, list[FileClass]] = {}


def use_file(path: Path) -> list[FileClass]:
    """Make the plugins of `path` known to the registries.

    Raises:
        InputError: there is no such file, or it cannot be read.
        PluginError: it is not Python, or no plugin is in it.
    """
    path = regular_file(path, "plugin").absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read --plugin {path}: {reason(error)}") from error
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PluginError(f"--plugin {path} is not Python: {error}") from error
    version = "sha256:" + hashlib.sha256(source).hexdigest()[:12]
    found = [
        FileClass(path, version, kind, node.name, node.lineno, first_line(node))
        for node, kind in _plugin_classes(tree)
    ]
    if not found and not _has_step(tree):
        raise PluginError(
            f"--plugin {path} has no plugin: it needs a public class that extends "
            f"{', '.join(BASES)}, or a function step that analyze examines"
        )
    _used[path] = found
    return found


def used_files(kind: str) -> list[FileClass]:
    """Return the plugins of one kind in every file given."""
    return [plugin for plugins in _used.values() for plugin in plugins if plugin.kind == kind]


def step_files() -> list[Path]:
    """Return the files given that have no plugin but a function `step`."""
    return [path for path, plugins in _used.items() if not plugins]


def forget_files() -> None:
    """Undo every `use_file`."""
    _used.clear()


def import_file(path: Path) -> ModuleType:
    """Import a file as a module of its own, once per process."""
    name = module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} does not end in .py")
    module = module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def module_name(path: Path) -> str:
    """Return what a file is called as a module."""
    digest = hashlib.sha256(str(path).encode("utf-8")).hexdigest()[:8]
    return f"newllm_plugin_file_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{digest}"


def kebab_case(name: str) -> str:
    """Return `SpreadOut` as `spread-out`, `SIGRegFast` as `sig-reg-fast`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _plugin_classes(tree: ast.Module) -> list[tuple[ast.ClassDef, str]]:
    kinds = dict(BASES)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for package, kind in PACKAGES.items():
                if (node.module or "").startswith(package):
                    kinds |= {alias.asname or alias.name: kind for alias in node.names}
    found = []
    for node in tree.body:
        # Options may extend those of a plugin, and they are dataclasses; plugins are not.
        if isinstance(node, ast.ClassDef) and not _is_dataclass(node):
            base = next((kinds[b] for b in map(_last_name, node.bases) if b in kinds), None)
            if base is not None:
                kinds[node.name] = base
                if not node.name.startswith("_"):
                    found.append((node, base))
    return found


def _has_step(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "step" for node in tree.body)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(
        _last_name(part.func if isinstance(part, ast.Call) else part) == "dataclass"
        for part in node.decorator_list
    )


def _last_name(part: ast.expr) -> str:
    return part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "")
