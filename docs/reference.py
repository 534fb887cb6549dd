"""Pages of the site that are made when it is built, so that none of them can be stale.

A hook of mkdocs: the commands from their options, the modules from their docstrings, and the first
page from README.md.
"""

import inspect
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File

from newllm_cli.app import EXIT_CODES, app
from newllm_cli.help import options_by_section

ROOT = Path(__file__).parent.parent
CORE = ROOT / "newllm_core"


def on_files(files: Any, *, config: Any) -> Any:  # noqa: ANN401 - of mkdocs
    """Add the pages that are no file."""
    pages = {"index.md": readme(), "COMMANDS.md": commands()} | dict(modules())
    for place in sorted(ROOT.glob("plugins/*/README.md")):
        pages[f"plugins/{place.parent.name}.md"] = relinked(place.read_text(encoding="utf-8"))
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401
    """Turn links between files of the repository into links between pages."""
    return relinked(markdown)


def readme() -> str:
    """Return the first page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace(
        "](plugins/newllm-hub)", "](plugins/newllm-hub.md)"
    )


def relinked(text: str) -> str:
    """Return a page whose links to folders of plugins and to README.md reach pages."""
    text = re.sub(r"\]\(\.\./plugins/([\w-]+)\)", r"](plugins/\1.md)", text)
    return text.replace("](../../README.md)", "](../index.md)").replace("](../../docs/", "](../")


def modules() -> Iterator[tuple[str, str]]:
    """Yield a page for every part of the core, all of it from docstrings."""
    parts = ("pipeline.front_door", "errors", "settings")
    text = "\n\n".join(f"::: newllm_core.{part}" for part in parts)
    yield "modules/newllm_core.md", f"# newllm_core\n\n{text}\n"
    for place in sorted(path.parent for path in CORE.glob("*/__init__.py")):
        name = f"newllm_core.{place.name}"
        yield f"modules/{place.name}.md", f"# {name}\n\n::: {name}\n"


def commands() -> str:
    """Return the page of all commands: usage, description, examples and every option."""
    parts = ["# Commands", EXIT_CODES, *_commands(typer.main.get_command(app), "newllm", None)]
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, name: str, parent: Any) -> Iterator[str]:  # noqa: ANN401 - of typer
    context = typer.Context(group, info_name=name, parent=parent, **group.context_settings)
    yield from _command(group, context)
    for inner in group.list_commands(context):
        command = group.get_command(context, inner)
        if hasattr(command, "commands"):
            yield from _commands(command, inner, context)
        else:
            yield from _command(command, typer.Context(command, info_name=inner, parent=context))


def _command(command: Any, context: Any) -> Iterator[str]:  # noqa: ANN401 - of typer
    about, _, examples = inspect.cleandoc(command.help).partition("Examples:\n")
    yield f"## {context.command_path}"
    yield "    " + command.get_usage(context).removeprefix("Usage: ").strip()
    yield about.strip()
    if examples:
        yield "\n".join(f"    {line.strip()}" for line in examples.splitlines() if line.strip())
    for title, options in options_by_section(command, context).items():
        rows = [f"| <code>{_cell(flags)}</code> | {_cell(text)} |" for flags, text in options]
        yield "\n".join([f"| {title} | |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
