"""Which part may import which: read from the files' own imports, those inside functions too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "newllm_core"
# From the ground up. A module imports its own floor and those below.
FLOORS = (
    ("errors",),
    ("files",),
    ("config", "presets"),
    ("settings",),
    ("runtime", "plugins"),
    ("parallel", "regularizers", "objectives"),
    ("kernels", "model", "data"),
    ("trajectory", "checkpoint"),
    ("evaluation", "generation"),
    ("analysis",),
    ("training",),
    ("pipeline", "benchmark", "testing"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MOST_ENTRIES = 24
LONGEST_FILE = 300


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(CORE.rglob("*.py"))}
CLI = {module_name(path): path for path in sorted((ROOT / "newllm_cli").rglob("*.py"))}


def imported(path):
    """Modules of newllm that a file imports; names that are modules themselves in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in FILES or full in CLI else node.module)
    return {name for name in found if name.partition(".")[0] in ("newllm_core", "newllm_cli")}


IMPORTS = {name: imported(path) for name, path in (FILES | CLI).items()}


def room(module):
    """The part of the core that a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def arrows(*rooms):
    return [
        (module, target)
        for module, targets in IMPORTS.items()
        if module in FILES and room(module) in rooms
        for target in targets
    ]


def test_every_room_has_a_floor_and_there_are_few():
    rooms = {room(module) for module in FILES} - {""}
    assert rooms <= set(FLOOR)
    entries = [e for e in CORE.iterdir() if e.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(e.name for e in entries)


@pytest.mark.parametrize("name", sorted(set(FLOOR) - {"presets"}))
def test_no_arrow_runs_upward(name):
    upward = [
        f"{module} -> {target}"
        for module, target in arrows(name)
        if target.startswith("newllm_cli") or FLOOR.get(room(target), -1) > FLOOR[name]
    ]
    assert upward == []


def test_no_circle():
    """Every module can be put after all that it imports."""
    left = {m: {t for t in IMPORTS[m] if t in FILES and t != m} for m in FILES}
    placed = set()
    while ready := {module for module, targets in left.items() if targets <= placed}:
        placed |= ready
        left = {module: targets for module, targets in left.items() if module not in placed}
    assert sorted(left) == []


@pytest.mark.parametrize(
    ("rooms", "strangers"),
    [
        (["model"], ["training", "kernels", "parallel"]),
        (["regularizers", "objectives"], ["training", "parallel", "model", "kernels"]),
        (["analysis"], ["training"]),
        (["kernels"], ["model", "training", "trajectory"]),
        (["files", "config"], ["runtime", "plugins"]),
    ],
)
def test_who_does_not_know_whom(rooms, strangers):
    known = [f"{m} -> {t}" for m, t in arrows(*rooms) if room(t) in strangers]
    assert known == []


def test_the_command_line_is_a_skin():
    """It imports what a command does as a whole, not how a model is trained."""
    inner = ("training", "kernels", "model", "objectives", "regularizers", "trajectory")
    known = [
        f"{module} -> {target}"
        for module in CLI
        for target in IMPORTS[module]
        if target in FILES and room(target) in inner
    ]
    assert known == []


def test_fast_forms_are_reached_through_the_door():
    beside = [
        f"{module} -> {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if room(target) == "kernels" and room(module) != "kernels" and not target.endswith("door")
    ]
    assert beside == []


@pytest.mark.parametrize("module", sorted(FILES | CLI))
def test_files_are_short(module):
    lines = (FILES | CLI)[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE
