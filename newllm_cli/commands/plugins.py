"""`newllm plugins`: what can be plugged in, whether it works, and a new one to start from."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.group import OWN
from newllm_cli.help import HelpfulCommand, HelpfulGroup
from newllm_cli.options import JsonOption, PluginOption, use_plugin_files

plugins = typer.Typer(
    cls=HelpfulGroup,
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode=None,
)


@plugins.callback()
def listed(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Import and try each; exit 4 if one is broken.")
    ] = False,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """List what can be plugged in, check it, start a new plugin.

    NEWLLM_PLUGINS=name,name allows only those plugins or distributions besides newllm's own.

    Examples:
        newllm plugins
        newllm plugins --check
        newllm plugins show ema-variance
        newllm plugins new spread-out --kind regularizer
    """
    from newllm_core.errors import ConfigError, PluginError

    use_plugin_files(plugin)
    if context.invoked_subcommand is not None:
        if check or json:
            raise ConfigError("give --json behind the subcommand, and --check without one")
        return
    from newllm_cli.output import console, print_json
    from newllm_cli.render_plugins import render_plugins
    from newllm_core.plugins.installed import damaged
    from newllm_core.plugins.listing import IGNORED, NOT_ALLOWED, PROBLEMS, list_plugins
    from newllm_core.plugins.lookup import ALLOW_LIST, unknown_allowed
    from newllm_core.plugins.registry import COMMANDS

    entries = list_plugins(check=check)
    for place, entry in enumerate(entries):
        is_allowed = entry.status != NOT_ALLOWED
        if entry.kind == COMMANDS.kind and entry.name in OWN and is_allowed:
            what = f"command {entry.name!r} of {entry.distribution}"
            problem = f"{what} is ignored: that name is newllm's own"
            entries[place] = replace(entry, status=IGNORED, problem=problem)
    if json:
        print_json({"schema": 1, "plugins": [asdict(entry) for entry in entries]})
    else:
        render_plugins(entries, console())
        if check:
            print("Data sources are imported and made; check_data_source reads one.")
    # Every claimant of a clash has the same line.
    problems = dict.fromkeys(e.problem for e in entries if e.status in PROBLEMS)
    for problem in [*problems, *damaged(), *unknown_allowed(os.environ.get(ALLOW_LIST))]:
        typer.echo(f"newllm: {problem}", err=True)
    if check and problems:
        raise typer.Exit(PluginError.exit_code)


@plugins.command(cls=HelpfulCommand)
def show(
    name: Annotated[str, typer.Argument(help="Name of a plugin.", metavar="NAME")],
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """Show one plugin: its options, where it is written, how to use it.

    Examples:
        newllm plugins show ema-variance
        newllm plugins show spread-out --plugin spread_out.py
    """
    from newllm_cli.output import console, print_json
    from newllm_cli.render_plugins import render_plugin
    from newllm_core.plugins.listing import describe_plugins

    use_plugin_files(plugin)
    found = describe_plugins(name)
    if json:
        print_json({"schema": 1, "plugins": found})
    else:
        for details in found:
            render_plugin(details, console())


@plugins.command(cls=HelpfulCommand)
def new(
    name: Annotated[
        str, typer.Argument(help="Name users will ask for, such as spread-out.", metavar="NAME")
    ],
    kind: Annotated[
        str, typer.Option(help="What it is.", metavar="cell|objective|regularizer|data-source")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="newllm-NAME")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write an installable, tested plugin to start from.

    Examples:
        newllm plugins new spread-out --kind regularizer
        newllm plugins new leaky --kind cell --out my-cell
    """
    from newllm_cli.output import print_json
    from newllm_core.plugins.scaffold import new_plugin

    folder = new_plugin(name, kind, out)
    if json:
        print_json({"schema": 1, "kind": kind, "folder": str(folder)})
    else:
        print(f"wrote {folder}; next: cd {folder} && make install && make test")
