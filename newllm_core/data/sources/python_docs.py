"""The `python-docs` source: the documentation inside the running Python, about 2 MB of English.

Nothing is downloaded and nothing is imported but the table of help topics: docstrings are read
from the source files of the standard library with `ast`.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from newllm_core.data.sources.base import DataSource, Document
from newllm_core.data.sources.row_readers import source_of
from newllm_core.errors import ConfigError

SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
)
_Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class PythonDocs(DataSource):
    """One document per help topic, then one per module of the standard library."""

    def documents(self) -> Iterator[Document]:
        """Yield topics by name, then modules by name; modules without docstrings are left out."""
        if self.input is not None:
            raise ConfigError(
                f"source python-docs reads no file, but input is {self.input!r}: say what it is, "
                f"--source {source_of(self.input)} or another, or leave it out"
            )
        with suppress(ImportError):  # some distributions of Python leave it out
            from pydoc_data.topics import topics

            yield from (Document(text=topics[name]) for name in sorted(topics))
        folder = Path(sysconfig.get_path("stdlib"))
        for name, path in _modules(folder):
            text = module_text(name, path)
            if text:
                yield Document(text=text)


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    found = []
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if not SKIPPED_FOLDERS.intersection(parts[:-1]):
            found.append((".".join(parts).removesuffix(".__init__"), path))
    yield from sorted(found)


def module_text(name: str, path: Path) -> str:
    """Return every docstring of a source file under the full name of its object; "" without any.

    Files that cannot be read or parsed have none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in others' sources
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    parts = [f"{full_name}\n\n{docstring}\n" for full_name, docstring in _docstrings(tree, name)]
    # A docstring may hold half of a surrogate pair, which is no Unicode text.
    return "\n".join(parts).encode("utf-8", "replace").decode("utf-8")


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | _Named):
        docstring = ast.get_docstring(node)
        if docstring:
            yield name, docstring
    for child in ast.iter_child_nodes(node):
        yield from _docstrings(child, f"{name}.{child.name}" if isinstance(child, _Named) else name)
