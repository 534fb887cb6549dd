"""Plugins from a file given with `--plugin FILE.py`: a first try without packaging.

Every public class of the file that extends `Cell`, `Objective`, `Regularizer` or `DataSource` (or
one of newllm's own) is a plugin under the kebab-case form of its name: `SpreadOut` is
`spread-out`. The file is read to find them, and imported only when one is used.
"""

import ast
import hashlib
from pathlib import Path
from typing import NoReturn

from newllm_core.errors import InputError, PluginError, reason
from newllm_core.files.from_strangers import regular_file
from newllm_core.plugins.locate import first_line
from newllm_core.plugins.plugin import FROM_FILES, Plugin, import_file, kebab_case
from newllm_core.plugins.registry import REGISTRIES

# Base classes, and where they and newllm's own are, each with its kind.
BASES = {each.base.partition(":")[2]: each.kind for each in REGISTRIES if each.base}
PACKAGES = {each.base.partition(".base:")[0]: each.kind for each in REGISTRIES if each.base}


def use_file(path: Path) -> list[Plugin]:
    """Make the plugins of `path` known to the registries.

    Raises:
        InputError: there is no such file, or it cannot be read.
        PluginError: it is not Python, cannot be imported, or no plugin is in it.
    """
    path = regular_file(path, "plugin").absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read --plugin {path}: {reason(error)}") from error
    try:
        tree = ast.parse(source, path.name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PluginError(f"--plugin {path} is not Python: {error}") from error
    version = "sha256:" + hashlib.sha256(source).hexdigest()[:12]
    found = [
        Plugin(
            kind,
            kebab_case(node.name),
            f"{path}:{node.name}",
            distribution="file",
            version=version,
            about=first_line(node),
            file=path,
            line=node.lineno,
        )
        for node, kind in _plugin_classes(tree)
    ]
    if not found and not _has_step(tree):
        _refuse(path)
    FROM_FILES[path] = found
    return found


def _refuse(path: Path) -> NoReturn:
    """Say why nothing is found in a file: it may be broken, or its bases in another file."""
    with Plugin("file", path.stem, str(path), "file", "", file=path).importing(f"--plugin {path}"):
        import_file(path)
    raise PluginError(
        f"--plugin {path} has no plugin: it needs a public class with one of these among its own "
        f"bases: {', '.join(BASES)}; or a function step that analyze examines"
    )


def step_files() -> list[Path]:
    """Return the files given that have no plugin but a function `step`."""
    return [path for path, plugins in FROM_FILES.items() if not plugins]


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
