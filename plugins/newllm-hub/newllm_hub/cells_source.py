"""The source of newllm's own cells and heads, fit for a file that does not have newllm."""

import ast
import inspect

from torch import nn

from newllm_core.model.bigrams import Bigrams
from newllm_core.model.cells.gru import GruUnit
from newllm_core.model.cells.network import MixedNorm, UpdateNetwork
from newllm_core.model.heads import HiddenLayer
from newllm_core.model.memory import LinearMemory
from newllm_core.plugins.registry import CELLS

# What cells and heads are made of, in an order in which they can be defined.
PARTS: tuple[type[nn.Module], ...] = (
    MixedNorm,
    UpdateNetwork,
    GruUnit,
    HiddenLayer,
    LinearMemory,
    Bigrams,
)
# Where training begins, and what options there are: neither is needed any more.
DROPPED = {"initialise", "Options", "options"}


def own_cells() -> list[str]:
    """Name the cells that are part of newllm."""
    return [name for name, claimants in CELLS.plugins().items() if claimants[0].is_own]


def cells_source() -> str:
    """Return definitions of all parts and own cells, these entered in a dictionary `CELLS`."""
    cells = {name: CELLS.load(name) for name in own_cells()}
    classes = [class_source(part) for part in (*PARTS, *cells.values())]
    entries = [f'CELLS["{name}"] = {cell.__name__}' for name, cell in cells.items()]
    return "\n\n\n".join([*classes, "\n".join(entries)]) + "\n"


def class_source(of: type) -> str:
    """Return the definition of a class without what is `DROPPED` from it."""
    source = inspect.getsource(of)
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for member in reversed(definition.body):
        if _name(member) in DROPPED:
            first = min([member.lineno, *(d.lineno for d in getattr(member, "decorator_list", []))])
            above = first - 1 - (not lines[first - 2])  # with the blank line before it
            del lines[above : member.end_lineno]
    return "\n".join(lines)


def _name(member: ast.stmt) -> str | None:
    if isinstance(member, ast.Assign):
        return getattr(member.targets[0], "id", None)
    if isinstance(member, ast.AnnAssign):
        return getattr(member.target, "id", None)
    return getattr(member, "name", None)
