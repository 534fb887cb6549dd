"""The command tree."""

from typing import Annotated

import typer

from newllm_cli.group import CommandGroup

EXIT_CODES = (
    "Exit codes: 0 fine, 1 bug, 2 usage or configuration, 3 a file missing, unreadable or in the "
    "way, 4 plugin, 5 diverged, 6 gate refused, 130 interrupted (the state of a run is saved)."
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
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train and study context-vector language models: one fixed-size vector is all the memory."""
