"""Commands of other distributions: listed without being imported, harmless when broken."""

import tomllib
from pathlib import Path

import pytest

from newllm_core.plugins.installed import installed
from newllm_core.plugins.registry import REGISTRIES

ROOT = Path(__file__).parents[2]
SOURCE = '''
from typing import Annotated

import typer


def count(
    text: Annotated[str, typer.Argument(help="What is counted.")],
    twice: Annotated[bool, typer.Option("--twice", help="Count it again.")] = False,
) -> None:
    """Count the letters of a text.

    Examples:
        newllm count abc
    """
    from newllm_core.errors import InputError

    if not text:
        raise InputError("nothing to count")
    print(len(text) * (2 if twice else 1))


NOTHING = 3
'''


def test_a_command_of_another_distribution_is_like_newllms_own(site, newllm):
    site.install("newllm-x", {"count": "counting:count"}, kind="command", counting=SOURCE)
    assert newllm("count", "abcd", "--twice").out == "8\n"
    newllm("count", "").one_line("nothing to count")
    shown = newllm("count", "-h").out
    assert "Count the letters of a text." in shown
    assert "  newllm count abc\n" in shown
    done = newllm("plugins", "show", "count")
    assert "count: command of newllm-x 1.2 (counting:count)" in done.out
    assert "example: newllm count --help" in done.out
    assert "no options" not in done.out  # only those of newllm's settings could be listed


def test_a_name_of_newllms_own_cannot_be_taken(site, newllm):
    site.install("newllm-x", {"generate": "counting:count"}, kind="command", counting=SOURCE)
    done = newllm("plugins", "--json")
    (entry,) = (each for each in done.json["plugins"] if each["kind"] == "command")
    assert (entry["name"], entry["status"]) == ("generate", "ignored")
    done.one_line("command 'generate' of newllm-x is ignored: that name is newllm's own")


def test_help_and_listing_import_none(site, newllm):
    broken = {"count": "counting:count", "nowhere": "absent:f"}
    source = "raise RuntimeError('on import')"
    site.install("newllm-x", broken, kind="command", summary="Counts.", counting=source)
    shown = newllm("--help")
    assert shown.code == 0
    assert [line.split() for line in shown.out.splitlines() if "newllm-x" in line] == [
        ["count", "newllm-x:", "Counts."],
        ["nowhere", "newllm-x:", "Counts."],
    ]
    assert newllm("evaluate", "--help").code == 0
    newllm("plugins").one_line("command 'nowhere' of newllm-x 1.2", "no module named 'absent'")
    done = newllm("count")
    assert done.code == 4
    done.one_line("command 'count' of newllm-x 1.2", "RuntimeError", "on import")


def test_a_command_without_a_summary_has_no_colon(site, newllm):
    site.install("newllm-x", {"count": "counting:count"}, kind="command", counting=SOURCE)
    (line,) = [line for line in newllm("--help").out.splitlines() if "newllm-x" in line]
    assert line.split() == ["count", "newllm-x"]


@pytest.mark.parametrize("target", ["counting:NOTHING", "counting:absent", "counting"])
def test_what_is_no_function_is_one_line(site, newllm, target):
    site.install("newllm-x", {"count": target}, kind="command", counting=SOURCE)
    done = newllm("count")
    assert done.code == 4
    done.one_line("command 'count' of newllm-x 1.2")


ENDS = """
import sys

import typer


def end(how: str):
    print("said")
    if how == "returned":
        return 3
    exec(how, globals())
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("returned", 0),
        ("raise typer.Exit", 0),
        ("raise typer.Exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('why')", "why"),  # Python writes it, and makes 1 of it
        ("raise typer.Abort", 130),
        ("raise typer.BadParameter('why')", 2),
        ("raise typer.BadParameter.__mro__[2]('why')", 1),
    ],
)
def test_a_command_ends_as_it_says(site, newllm, how, code):
    site.install("newllm-x", {"end": "ending:end"}, kind="command", ending=ENDS)
    done = newllm("end", how)
    assert (done.code, done.out) == (code, "said\n")
    said = {130: ["interrupted"], 2: ["why"], 1: ["why"]}
    if code in said:
        done.one_line(*said[code])


def test_a_file_that_ends_too_early_keeps_its_traceback(site, newllm):
    site.install("newllm-x", {"end": "ending:end"}, kind="command", ending=ENDS)
    with pytest.raises(RuntimeError) as caught:
        newllm("end", "raise EOFError('cut off')")
    assert str(caught.value.__cause__) == "cut off"


def test_two_claimants_clash_and_newllms_own_stays(site, newllm):
    site.install("newllm-x", {"count": "counting:count"}, kind="command", counting=SOURCE)
    own = {"count": "counting:count", "evaluate": "counting:count"}
    site.install("newllm-y", own, kind="command")
    newllm("count", "abc").one_line("is claimed by newllm-x", "newllm-y", "uninstall one")
    assert "Say how well trained heads predict" in newllm("evaluate", "--help").out
    listed = [line.split()[:1] for line in newllm("--help").out.splitlines()]
    assert listed.count(["evaluate"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("serve a.safetensors", ["command 'serve' is of newllm-serve"]),
        ("phase1 --track wandb", ["tracker 'wandb' is of newllm-trackers"]),
        ("phase1 --reg sigreg", ["regularizer 'sigreg' is of newllm-sigreg"]),
    ],
)
def test_who_asks_for_what_newllm_has_elsewhere_is_told_where(
    monkeypatch, newllm, arguments, words
):
    def own(kind, group):
        return [plugin for plugin in installed(kind, group) if plugin.is_own]

    monkeypatch.setattr("newllm_core.plugins.lookup.installed", own)
    done = newllm(*arguments.split())
    assert done.code == 2
    done.one_line(*words, "pip install ./plugins/newllm-")


def test_what_newllm_has_elsewhere_is_listed_whole():
    found = {}
    for path in (ROOT / "plugins").glob("*/pyproject.toml"):
        project = tomllib.loads(path.read_text())["project"]
        for group, points in project["entry-points"].items():
            found.setdefault(group, {}).update(dict.fromkeys(points, project["name"]))
    assert len(found.pop("lm_eval.models")) == 1  # of another program
    listed = {of.group: dict(of.published) for of in REGISTRIES if of.published}
    assert listed == found
