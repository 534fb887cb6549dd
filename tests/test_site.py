"""The site's command reference has every command and option; it is made from the command line."""

import dataclasses
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from newllm_core.config import SECTIONS
from tests.cli.inside import CommandLine

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def reference():
    spec = spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(page, command):
    return page.partition(f"\n## newllm {command}\n")[2].partition("\n## ")[0]


def test_every_command_of_the_help_has_a_section(reference, monkeypatch, capsys):
    listed = CommandLine(monkeypatch, capsys)("--help").out.partition("Commands:\n")[2]
    own = listed.partition("Commands of other packages:")[0].partition("Exit codes")[0]
    names = re.findall(r"^  (\S+)", own, flags=re.MULTILINE)
    assert len(names) > 10
    page = reference.commands()
    missing = [name for name in (*names, "plugins show", "plugins new") if not section(page, name)]
    assert missing == []


@pytest.mark.parametrize("command", ["prepare", "phase1", "phase2", "evaluate", "plugins new"])
def test_every_flag_of_the_help_is_in_its_section(reference, monkeypatch, capsys, command):
    shown = CommandLine(monkeypatch, capsys)(*command.split(), "--help").out.partition("Options:")[
        2
    ]
    flags = {line.split()[0].rstrip(",") for line in shown.splitlines() if line.startswith("  -")}
    found = section(reference.commands(), command)
    assert flags
    assert sorted(flag for flag in flags if f"<code>{flag}" not in found) == []


def test_defaults_are_those_of_the_configuration(reference):
    found = section(reference.commands(), "phase1")
    for spec in dataclasses.fields(SECTIONS["phase1"]):
        if type(spec.default) in (int, float):
            (row,) = (
                r for r in found.splitlines() if f"<code>--{spec.name.replace('_', '-')} " in r
            )
            assert f"[default: {spec.default}]" in row


def test_links_of_the_first_page_reach_pages(reference):
    page = reference.readme()
    assert "](ARCHITECTURE.md)" in page
    assert "](docs/" not in page
    assert "](plugins/newllm-hub.md)" in page
