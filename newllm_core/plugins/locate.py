"""Where a class is written and what its first line says, found without importing anything."""

import ast
import inspect
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path


@dataclass(frozen=True)
class ClassSource:
    """Where a class statement is, and the first line of its docstring ("" without one)."""

    path: Path
    line: int
    summary: str


class ModuleMissing(Exception):
    """No finder knows the module."""


def find_class(module: str, name: str) -> ClassSource | None:
    """Return the class statement of `module:name`, or None where reading the source does not tell.

    Raises:
        ModuleMissing: there is no such module.
    """
    path = module_path(module)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            summary = (ast.get_docstring(node) or "").partition("\n")[0].strip()
            return ClassSource(path, node.lineno, summary)
    return None


def imported_source(found: type) -> ClassSource:
    """Return the same of a class that is imported; line 0 for one that no class statement made."""
    path = Path(getattr(sys.modules[found.__module__], "__file__", None) or found.__module__)
    try:
        line = inspect.getsourcelines(found)[1]
    except (OSError, TypeError):
        line = 0
    return ClassSource(path, line, (found.__doc__ or "").strip().partition("\n")[0])


def module_path(module: str) -> Path | None:
    """Return the source file of a module; None for one without.

    `importlib.util.find_spec` would import the packages above it.

    Raises:
        ModuleMissing: there is no such module.
    """
    parts = module.split(".")
    search: list[str] | None = None
    origin = None
    for depth in range(1, len(parts) + 1):
        try:
            spec = _spec(".".join(parts[:depth]), search)
            search = list(spec.submodule_search_locations or [])
        except ModuleMissing:
            raise
        except Exception:  # any package may have its finder there; nested namespaces ask for more
            return None
        origin = spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None


def _spec(name: str, search: list[str] | None) -> ModuleSpec:
    for finder in sys.meta_path:
        spec = finder.find_spec(name, search)
        if spec is not None:
            return spec
    raise ModuleMissing(f"no module named {name!r}")
