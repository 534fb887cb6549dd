"""The command tree."""

from typing import Annotated

import typer

from newllm_cli.commands.analyze import analyze
from newllm_cli.commands.bench import bench
from newllm_cli.commands.compare import compare
from newllm_cli.commands.contexts import contexts
from newllm_cli.commands.evaluate import evaluate
from newllm_cli.commands.expand import expand
from newllm_cli.commands.generate import generate
from newllm_cli.commands.phase1 import phase1
from newllm_cli.commands.phase2 import phase2
from newllm_cli.commands.plugins import plugins_app
from newllm_cli.commands.prepare import prepare
from newllm_cli.commands.quickstart import quickstart
from newllm_cli.help import HelpfulCommand
from newllm_cli.plugged import CommandGroup

EXIT_CODES = (
    "Exit codes: 0 fine, 1 bug, 2 usage or configuration, 3 missing or unreadable input, "
    "4 plugin, 5 diverged, 6 gate refused, 130 interrupted (the state of a run is saved)."
)

app = typer.Typer(
    name="newllm",
    cls=CommandGroup,
    help="Train and study context-vector language models: one fixed-size vector is all the memory.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(asked: bool) -> None:
    if asked:
        from newllm_core import __version__

        typer.echo(f"newllm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Train and study context-vector language models: one fixed-size vector is all the memory."""


COMMANDS = (
    quickstart,
    prepare,
    phase1,
    analyze,
    compare,
    phase2,
    expand,
    evaluate,
    contexts,
    generate,
    bench,
)
for command in COMMANDS:
    app.command(cls=HelpfulCommand)(command)
app.add_typer(plugins_app, name="plugins")
