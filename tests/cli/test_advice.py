"""What messages advise exists: flags, settings, commands and extras, in all of the sources."""

import ast
import dataclasses
import re
from functools import cache
from importlib.metadata import metadata
from pathlib import Path

import pytest
from typer.main import get_command

from newllm_cli.app import app
from newllm_core.config import PLUGIN_SECTIONS, SECTIONS
from newllm_core.plugins.registry import (
    CELLS,
    COMMANDS,
    DATA_SOURCES,
    OBJECTIVES,
    REGULARIZERS,
)

ROOT = Path(__file__).parents[2]
PLUGINS = {
    "cell": CELLS,
    "objective": OBJECTIVES,
    "regularizer": REGULARIZERS,
    "source": DATA_SOURCES,
}
SETTING = re.compile(rf"\b({'|'.join([*SECTIONS, *PLUGIN_SECTIONS])})\.([a-z]\w*)(?![\w(.])")
ENDINGS = ("toml", "json", "txt", "safetensors", "py")
PROSE = (
    "reads",
    "wrote",
    "added",
    "is",
    "checkpoint",
    "again",
    "or",
    "installed",
    "run",
    "does",
    "and",
)
# Where a message comes from says which command it is read in.
OF_PLACE = {
    "newllm_core/training/phase1": ["phase1"],
    "newllm_core/training/phase2": ["phase2"],
    "newllm_core/data": ["prepare"],
    "newllm_core/analysis/matrix": ["analyze"],
    "newllm_core/generation": ["generate"],
    "newllm_core/evaluation": ["evaluate", "contexts"],
    "newllm_core/plugins": ["phase1", "prepare", "analyze", "plugins"],
} | {f"newllm_cli/commands/{name}": [name] for name in ("analyze", "evaluate", "generate")}


@cache
def commands():
    """The flags of every command, by its words."""
    found = {}

    def visit(command, words):
        for name in getattr(command, "commands", ()):
            visit(command.get_command(None, name), (*words, name))
        options = [*command.params, *get_command(app).params]
        flags = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
        found[" ".join(words)] = {flag for flag in flags if flag.startswith("--")} | {"--help"}

    visit(get_command(app), ())
    return found


def strings(path):
    """Every text in a file that is no docstring, with `{}` for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def messages():
    for package in ("newllm_core", "newllm_cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            yield from ((name, text) for text in strings(path) if " " in text)


def problems(name, text):
    """What the message `text` of the file `name` names and does not exist."""
    places = next((of for start, of in OF_PLACE.items() if name.startswith(start)), commands())
    text = re.sub(r"torchrun --\S+", "", text)  # its flags are not newllm's
    for part in re.split(r"(?=newllm [a-z]|\bphase[12] with )", text):
        said = re.match(r"newllm ((?:plugins )?[a-z][\w-]*)|(phase[12]) with ", part)
        named = said and (said[1] or said[2])
        named = None if named in PROSE else named
        if named in COMMANDS.published:
            yield f"command {named} of {COMMANDS.published[named]}, which need not be installed"
            continue
        if named and named not in commands():
            yield f"command {named}"
            continue
        known = commands()[named] if named else set().union(*(commands()[at] for at in places))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?!\w|-?\{)", part):
            if flag not in known:
                yield f"{flag} of {named or ', '.join(places)}"
    for section, key in SETTING.findall(text):
        if key not in (*_keys(section), *ENDINGS):
            yield f"setting {section}.{key}"
    if re.search(r"pip install '?newllm-", text):
        yield "a package that is on no index: pip install ./plugins/NAME"
    extras = metadata("newllm").get_all("Provides-Extra")
    for extra in re.findall(r"pip install '?newllm\[(\w+)\]", text):
        if extra not in extras:
            yield f"extra {extra}"


@cache
def _keys(section):
    if section in SECTIONS:
        shorthands = SECTIONS[section].SHORTHANDS
        return [*(spec.name for spec in dataclasses.fields(SECTIONS[section])), *shorthands]
    found = [PLUGINS[section].load(name).Options for name in PLUGINS[section].plugins()]
    return [spec.name for options in found for spec in dataclasses.fields(options)]


def test_what_messages_name_exists():
    found = [(name, problem) for name, text in messages() for problem in problems(name, text)]
    assert found == [], found


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("newllm_core/training/phase2/steps.py", "try a lower --init-std", "--init-std of phase2"),
        ("newllm_core/data/prepare.py", "say --tokeniser", "--tokeniser of prepare"),
        ("newllm_core/x.py", "run newllm prepar --out {}", "command prepar"),
        ("newllm_core/x.py", "run newllm prepare --data {}", "--data of prepare"),
        ("newllm_core/x.py", "phase1 with --epochs 3", "--epochs of phase1"),
        ("newllm_core/x.py", "set source.txt_column", "setting source.txt_column"),
        ("newllm_core/x.py", "raise gate.max_drft", "setting gate.max_drft"),
        ("newllm_core/x.py", "pip install 'newllm[pngs]'", "extra pngs"),
        (
            *("newllm_core/x.py", "talk to it: newllm serve {}"),
            "command serve of newllm-serve, which need not be installed",
        ),
        (
            *("newllm_core/x.py", "pip install 'newllm-hub[transformers]'"),
            "a package that is on no index: pip install ./plugins/NAME",
        ),
    ],
)
def test_what_does_not_exist_is_found(name, text, problem):
    assert list(problems(name, text)) == [problem]
