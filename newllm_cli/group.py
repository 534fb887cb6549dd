"""The commands: newllm's own, and those that other distributions have in `newllm.commands`.

Each is a function with typer's annotations. What it takes is worked out once it is asked for, and
the commands of other distributions are imported then.
"""

import inspect
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from newllm_cli.help import HelpfulCommand, opening_nothing

# In the order in which they are listed; each is what has its name in the file of its name.
OWN = (
    *("quickstart", "prepare", "phase1", "analyze", "compare", "phase2", "expand", "evaluate"),
    *("contexts", "generate", "bench", "plugins"),
)


def own_command(name: str) -> Any:  # noqa: ANN401 - a function, or a typer.Typer with several
    """Import one of newllm's own commands."""
    return getattr(import_module(f"newllm_cli.commands.{name}"), name)


class CommandGroup(TyperGroup):
    """newllm's own commands, and those of other distributions behind them."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - as typer has them
        super().__init__(**settings)
        names: Any = dict.fromkeys(OWN)  # which mistyped ones are compared with
        self.commands = names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as click has it
        """Return the command, importing it.

        Raises:
            ConfigError: it is newllm's but not installed, or not allowed.
            PluginError: it cannot be imported, is no function, or two distributions claim it.
        """
        if cmd_name in OWN:
            found = own_command(cmd_name)
        else:
            from newllm_core.plugins.registry import COMMANDS

            if cmd_name not in COMMANDS.plugins() and cmd_name not in COMMANDS.published:
                return None
            found = COMMANDS.load(cmd_name)
        if isinstance(found, typer.Typer):
            return get_command(found)
        settings = dict(self.context_settings)
        app = typer.Typer(rich_markup_mode=None, context_settings=settings, add_completion=False)
        app.command(cmd_name, cls=HelpfulCommand)(opening_nothing(found))
        return get_command(app)

    def invoke(self, ctx: Any) -> None:  # noqa: ANN401
        """Run a command; what its function returns is not an exit code."""
        super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """List newllm's own commands, then the others and where each is from."""
        from newllm_core.plugins.registry import COMMANDS

        with formatter.section("Commands"):
            formatter.write_dl([(name, _about(own_command(name))) for name in OWN])
        found = [first for first, *_ in COMMANDS.plugins().values()]
        records = [
            (plugin.name, ": ".join(filter(None, (plugin.distribution, plugin.about))))
            for plugin in found
            if plugin.name not in OWN
        ]
        if records:
            with formatter.section("Commands of other packages"):
                formatter.write_dl(records)


def _about(command: Any) -> str:  # noqa: ANN401
    """Return the first line of what a command says of itself."""
    registered = getattr(command, "registered_callback", None)  # of a group
    function = registered.callback if registered else command
    return (inspect.getdoc(function) or "").partition("\n")[0]
